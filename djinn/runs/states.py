"""The states of runs, step runs and approvals.

    Run      QUEUED ──> RUNNING <──> WAITING | PAUSED      any of them ──> SUCCEEDED | FAILED | CANCELLED
                └──────────────────> FAILED | CANCELLED

    StepRun  QUEUED ──> RUNNING | WAITING ──> SUCCEEDED | FAILED | CANCELLED
                └────> SKIPPED | FAILED | CANCELLED

    Approval OPEN ──> APPROVED | REJECTED | EXPIRED | VOID

A retry, an item of a loop or a revisit is a new step run. Final is final, in Python by `transition()`, in the
database by a trigger.
"""

from __future__ import annotations

from django.db.models import TextChoices

from djinn.core.transition import Moves, finals


class RunStatus(TextChoices):
    """Where a run is."""

    QUEUED = "queued", "Queued"
    """Stored; its first step was not created yet, or its concurrency group is full."""
    RUNNING = "running", "Running"
    WAITING = "waiting", "Waiting"
    """Everything that is open waits for a person."""
    PAUSED = "paused", "Paused"
    """Nothing new starts until somebody resumes it; what runs goes on."""
    SUCCEEDED = "succeeded", "Succeeded"
    FAILED = "failed", "Failed"
    CANCELLED = "cancelled", "Cancelled"


class StepStatus(TextChoices):
    """Where a step run is."""

    QUEUED = "queued", "Queued"
    """Waits for a worker, or for the moment of its next try."""
    RUNNING = "running", "Running"
    """A worker has claimed its execution, or its pipeline's run is under way."""
    WAITING = "waiting", "Waiting"
    """A person has to decide."""
    SUCCEEDED = "succeeded", "Succeeded"
    FAILED = "failed", "Failed"
    CANCELLED = "cancelled", "Cancelled"
    SKIPPED = "skipped", "Skipped"
    """The flow has passed it by: what it needs failed or was skipped, or its condition was not true."""


class ApprovalStatus(TextChoices):
    """Where a question to people is."""

    OPEN = "open", "Open"
    APPROVED = "approved", "Approved"
    REJECTED = "rejected", "Rejected"
    EXPIRED = "expired", "Expired"
    VOID = "void", "Void"
    """What was shown has changed since, or the run no longer asks."""


_R, _S, _A = RunStatus, StepStatus, ApprovalStatus
_RUN_ENDS = frozenset({_R.SUCCEEDED, _R.FAILED, _R.CANCELLED})
_STEP_ENDS = frozenset({_S.SUCCEEDED, _S.FAILED, _S.CANCELLED})
_EARLY_ENDS = frozenset({_S.SKIPPED, _S.FAILED, _S.CANCELLED})
_APPROVAL_ENDS = frozenset({_A.APPROVED, _A.REJECTED, _A.EXPIRED, _A.VOID})

RUN_MOVES: Moves = {
    _R.QUEUED: frozenset({_R.RUNNING, _R.FAILED, _R.CANCELLED}),
    _R.RUNNING: _RUN_ENDS | {_R.WAITING, _R.PAUSED},
    _R.WAITING: _RUN_ENDS | {_R.RUNNING, _R.PAUSED},
    _R.PAUSED: _RUN_ENDS | {_R.RUNNING, _R.WAITING},
    **{end: frozenset() for end in _RUN_ENDS},
}
STEP_MOVES: Moves = {
    _S.QUEUED: _EARLY_ENDS | {_S.RUNNING, _S.WAITING},
    _S.RUNNING: _STEP_ENDS,
    _S.WAITING: _STEP_ENDS,
    **{end: frozenset() for end in _STEP_ENDS | _EARLY_ENDS},
}
APPROVAL_MOVES: Moves = {_A.OPEN: _APPROVAL_ENDS, **{end: frozenset() for end in _APPROVAL_ENDS}}

RUN_FINAL, STEP_FINAL = finals(RUN_MOVES), finals(STEP_MOVES)
RUN_OPEN, STEP_OPEN = frozenset(RUN_MOVES) - RUN_FINAL, frozenset(STEP_MOVES) - STEP_FINAL
RUN_ADMITTED = RUN_OPEN - {_R.QUEUED}
"""Runs that take a place in their concurrency group."""
