"""The states of an execution.

    STARTING ──> RUNNING ──> EXITED | KILLED | LOST
        └───────────────────> EXITED | KILLED | LOST

The last three are final, in Python by `transition()` and the lease's guard, in the database by a trigger.
"""

from __future__ import annotations

from django.db.models import TextChoices

from djinn.core.transition import Moves, finals


class ExecutionStatus(TextChoices):
    STARTING = "starting", "Starting"
    """The row exists; its container may or may not."""
    RUNNING = "running", "Running"
    """The runtime inside has said that it is ready."""
    EXITED = "exited", "Exited"
    """It ended by itself; the journal's last record says how."""
    KILLED = "killed", "Killed"
    """We stopped it: cancelled, or past its deadline."""
    LOST = "lost", "Lost"
    """It ended without a last record, never started, or its host is gone."""


_S = ExecutionStatus
_ENDS = frozenset({_S.EXITED, _S.KILLED, _S.LOST})
MOVES: Moves = {
    _S.STARTING: _ENDS | {_S.RUNNING},
    _S.RUNNING: _ENDS,
    _S.EXITED: frozenset(),
    _S.KILLED: frozenset(),
    _S.LOST: frozenset(),
}
FINAL = finals(MOVES)
OPEN = frozenset(MOVES) - FINAL


class Reason(TextChoices):
    """Why an execution, and with it a step, did not succeed. The list is closed."""

    NONE = "", "None"
    ERROR = "error", "The work failed"
    TIMEOUT = "timeout", "It took longer than its timeout"
    OUT_OF_MEMORY = "out_of_memory", "It needed more memory than its limit"
    OUTPUT_LIMIT = "output_limit", "It wrote more output than allowed"
    DISK = "disk", "The disk was full"
    TURNS = "turns", "The agent used all its turns"
    MODEL = "model", "The model's provider refused"
    BUDGET = "budget", "The budget was used up"
    CANCELLED = "cancelled", "A person cancelled it"
    REJECTED = "rejected", "What it asked for is not allowed"
    IMAGE = "image", "Its image cannot be used"
    INPUT = "input", "Its input could not be made"
    VISITS = "visits", "A step was visited too often"
    RETRIES = "retries", "A step asked for another try too often"
    CONFLICT = "conflict", "Parallel steps changed the same lines"
    INVALID_OUTPUT = "invalid_output", "Its answer does not follow the schema"
    UNMATCHED = "unmatched", "Its result is none that it may give"
    EXPIRED = "expired", "Nobody decided in time"
    CHILD = "child", "The pipeline that it uses did not succeed"
    RUNNER = "runner", "The container engine did not answer"
    FORGED = "forged", "Its record was forged"
    LOST = "lost", "It ended without telling how"
