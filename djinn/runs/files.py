"""Which files a step run begins with, and where they are."""

from __future__ import annotations

from dataclasses import dataclass

from django.db.models import Q

from djinn.pipelines.flow import final_bases
from djinn.pipelines.schema import from_snapshot
from djinn.runs.histories import history_of
from djinn.runs.holds import lineage
from djinn.runs.models import Run, StepRun


@dataclass(frozen=True)
class Place:
    """The directory of the outermost run, the lane in it, and what they begin with."""

    workspace: str
    lane: str
    host: str
    """Empty while no worker has begun it."""
    bases: tuple[str, ...]
    forked_from: str
    """The directory that the snapshots of reused step runs are in; empty for none."""


def place_of(step_run: StepRun) -> Place:
    """Where the step run's execution works."""
    above = lineage(step_run.run)
    outermost = above[-1]
    lanes = [f"in{run.parent_id}" for run in reversed(above) if run.parent_id is not None]
    return Place(
        workspace=outermost.stream,
        lane=".".join([*lanes, step_run.lane or "main"]) if lanes else step_run.lane,
        host=outermost.host,
        bases=tuple(bases_of(step_run)),
        forked_from=_forked_from(outermost),
    )


def bases_of(step_run: StepRun) -> list[str]:
    """The snapshots that are merged into what the step run begins with; none is the workspace as it was at first."""
    if step_run.bases:
        return snapshots_of(step_run.run, step_run.bases)
    parent = step_run.run.parent
    return bases_of(parent) if parent is not None else []


def snapshots_of(run: Run, numbers: list[int]) -> list[str]:
    """The snapshots that these step runs of the run have left."""
    rows = {row.number: row for row in run.step_runs.filter(number__in=numbers)}
    found = [snapshot for number in numbers if number in rows for snapshot in _left_by(rows[number])]
    return list(dict.fromkeys(found))


def _left_by(step_run: StepRun) -> list[str]:
    if step_run.snapshot:
        return [step_run.snapshot]
    original = step_run.reused_from or step_run
    child = Run.objects.filter(parent=original).first()
    if child is None:
        return []
    left = snapshots_of(child, list(final_bases(from_snapshot(child.definition), history_of(child))))
    return left or bases_of(step_run)


def _forked_from(run: Run) -> str:
    """The directory of the run whose results stand in this one: the newest one of which a step run is reused."""
    if run.continues_id is None:
        return ""
    has_files = ~Q(snapshot="") | Q(reused_from__child__isnull=False)
    reused = run.step_runs.filter(has_files, reused_from__isnull=False).order_by("-reused_from__run_id")
    number = reused.values_list("reused_from__run_id", flat=True).first()
    return f"run-{number}" if number else ""
