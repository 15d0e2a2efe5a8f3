"""The states of runs and step runs.

    Run      QUEUED ──> RUNNING ──> SUCCEEDED | FAILED | CANCELLED
                └──────────────────> FAILED | CANCELLED

    StepRun  QUEUED ──> RUNNING ──> SUCCEEDED | FAILED | CANCELLED
                └──────────────────> FAILED | CANCELLED

A retry, a loop's next round or a revisit is a new step run. Final is final, in Python by `transition()`, in the
database by a trigger.
"""

from __future__ import annotations

from django.db.models import TextChoices

from djinn.core.transition import Moves, finals


class RunStatus(TextChoices):
    """Where a run is."""

    QUEUED = "queued", "Queued"
    """Stored; its first step was not created yet."""
    RUNNING = "running", "Running"
    SUCCEEDED = "succeeded", "Succeeded"
    FAILED = "failed", "Failed"
    CANCELLED = "cancelled", "Cancelled"


class StepStatus(TextChoices):
    """Where a step run is."""

    QUEUED = "queued", "Queued"
    """Waits for a worker, or for the moment of its next try."""
    RUNNING = "running", "Running"
    """A worker has claimed its execution."""
    SUCCEEDED = "succeeded", "Succeeded"
    FAILED = "failed", "Failed"
    CANCELLED = "cancelled", "Cancelled"


def _moves(queued: str, running: str, ends: frozenset[str], early: frozenset[str]) -> Moves:
    return {queued: early | {running}, running: ends, **{end: frozenset() for end in ends}}


_R, _S = RunStatus, StepStatus
RUN_MOVES = _moves(
    _R.QUEUED, _R.RUNNING, frozenset({_R.SUCCEEDED, _R.FAILED, _R.CANCELLED}), frozenset({_R.FAILED, _R.CANCELLED})
)
STEP_MOVES = _moves(
    _S.QUEUED, _S.RUNNING, frozenset({_S.SUCCEEDED, _S.FAILED, _S.CANCELLED}), frozenset({_S.FAILED, _S.CANCELLED})
)
RUN_FINAL, STEP_FINAL = finals(RUN_MOVES), finals(STEP_MOVES)
RUN_OPEN, STEP_OPEN = frozenset(RUN_MOVES) - RUN_FINAL, frozenset(STEP_MOVES) - STEP_FINAL
