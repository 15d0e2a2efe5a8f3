"""The files that a run kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO

from django.conf import settings
from django.db.models import Q

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
    steps = {
        (row.reused_from or row).execution_id: row
        for row in run.step_runs.select_related("reused_from").order_by("number")
    }
    found = Artifact.objects.filter(execution__in=[pk for pk in steps if pk is not None]).order_by("path", "pk")
    return [KeptFile(row, steps[row.execution_id].step, steps[row.execution_id].item) for row in found]


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
