"""What is done to executions from outside of their supervision."""

from __future__ import annotations

from typing import Any

from djinn.core.faults import fault
from djinn.core.transition import transition
from djinn.executions.lease import DatabaseClock
from djinn.executions.models import Execution
from djinn.executions.states import MOVES, OPEN, ExecutionStatus, Reason


def create_execution(**columns: Any) -> Execution:
    """A new execution, STARTING; it has a container once a worker has claimed it."""
    return Execution.objects.create(**columns)


def request_stop(*, execution_id: int, reason: Reason) -> bool:
    """Store that the execution shall stop; whether it was still open. The first reason stays."""
    rows = Execution.objects.filter(pk=execution_id, status__in=OPEN)
    if rows.filter(stop_requested_at=None).update(stop_requested_at=DatabaseClock(), stop_reason=reason):
        fault("stop.requested")
        return True
    return rows.exists()


def give_up(*, execution: Execution, message: str) -> bool:
    """Declare an execution LOST whose host is gone, or that never had one; False when it has ended meanwhile.

    The token is raised, so that a worker that comes back is fenced.
    """
    fault("give_up.before")
    return transition(
        execution,
        ExecutionStatus.LOST,
        moves=MOVES,
        where={"lease_token": execution.lease_token},
        reason=Reason.LOST,
        message=message,
        lease_token=execution.lease_token + 1,
        ended_at=DatabaseClock(),
    )


def drop_unclaimed(*, execution: Execution, reason: Reason) -> bool:
    """End an execution that no worker has ever claimed; False when one has."""
    return transition(
        execution,
        ExecutionStatus.KILLED,
        moves=MOVES,
        where={"lease_token": 0},
        reason=reason,
        message="it was stopped before it began",
        lease_token=1,
        ended_at=DatabaseClock(),
    )
