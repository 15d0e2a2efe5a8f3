"""The definition that a run keeps."""

from __future__ import annotations

from djinn.core.errors import Conflict
from djinn.pipelines.schema import Pipeline, from_snapshot
from djinn.runs.models import Run


def definition_of(run: Run) -> Pipeline:
    """The run's pipeline; raises `Conflict` when this version cannot read it any more."""
    try:
        return from_snapshot(run.definition)
    except ValueError as exc:
        raise Conflict(f"Run {run.pk} keeps a definition that this version cannot read: restart it instead.") from exc
