"""The files that a run kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO

from django.conf import settings
from django.db.models import Q
from django.db.models.functions import Coalesce

from djinn.core.errors import NotFound
from djinn.executions.models import Artifact
from djinn.runs.models import Run


@dataclass(frozen=True)
class KeptFile:
    """A file, and the step that kept it."""

    row: Artifact
    step: str
    item: str


def artifacts_of(run: Run) -> list[KeptFile]:
    """The files that the run's step runs kept, those included whose results it took over, by path, newest last."""
    held_by = Coalesce("reused_from__execution_id", "execution_id")
    rows = run.step_runs.annotate(held_by=held_by).filter(held_by__isnull=False).order_by("number")
    steps = {held: (step, item) for held, step, item in rows.values_list("held_by", "step", "item")}
    found = Artifact.objects.filter(execution__in=list(steps)).order_by("path", "pk")
    return [KeptFile(row, *steps[row.execution_id]) for row in found]


def open_artifact(run: Run, artifact_id: int) -> tuple[Artifact, BinaryIO]:
    """The file's row and its content, open; raises `NotFound` when the run kept no such file, or it was removed."""
    mine = Q(execution__step_run__run=run) | Q(execution__step_run__reuses__run=run)
    row = Artifact.objects.filter(mine, pk=artifact_id).first()
    if row is None:
        raise NotFound(f"Run {run.pk} kept no file {artifact_id}.")
    try:
        return row, (settings.INSTALLATION.artifacts / row.digest).open("rb")
    except FileNotFoundError as exc:
        raise NotFound(f"The content of {row.path} is not there any more.") from exc
