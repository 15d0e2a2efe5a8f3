"""Taking a step run's execution: which one goes next, on which host, and whether its run lets anything begin."""

from __future__ import annotations

from collections.abc import Iterator

from django.conf import settings
from django.db import transaction

from djinn.core.faults import fault
from djinn.core.transition import transition
from djinn.events.log import NewEvent, append
from djinn.executions import lease as leases
from djinn.executions.lease import DatabaseClock
from djinn.executions.services import request_stop
from djinn.executions.states import Reason
from djinn.runs.dispatch import ring_execute
from djinn.runs.holds import Hold, hold_on, lineage
from djinn.runs.models import Run, StepRun
from djinn.runs.states import STEP_MOVES, STEP_OPEN, StepStatus
from djinn.runs.turn import tags
from djinn.runs.urgency import most_urgent

MOST_LOOKS = 3


def claim_next(step_run_id: int) -> tuple[StepRun, leases.Lease] | None:
    """The most urgent step run that this host may go on with, and its lease; last the one that was rung for."""
    for chosen in _candidates(_open_step_run(step_run_id)):
        lease = _claim(chosen) if _is_for_this_host(chosen) else None
        if lease is not None:
            fault("claim.after")
            return chosen, lease
    return None


def _open_step_run(step_run_id: int | None) -> StepRun | None:
    rows = StepRun.objects.select_related("run").filter(status__in=STEP_OPEN, execution__isnull=False)
    return rows.filter(pk=step_run_id or 0).first()


def _candidates(rung: StepRun | None) -> Iterator[StepRun]:
    """What to claim: the most urgent of what waits, and last what was rung for.

    What was rung for comes first when it has begun, since its worker may be dead. When it is held or has ended, whoever
    took it may have been rung for another step, which waits for this ring now.
    """
    waits = rung is not None and rung.status == StepStatus.QUEUED
    if rung is not None and not waits:
        yield rung
    tried: list[int] = []
    while len(tried) < MOST_LOOKS:
        urgent = _open_step_run(most_urgent(settings.HOST_NAME, but=tried))
        if urgent is None or urgent == rung:
            break
        tried.append(urgent.pk)
        yield urgent
    if rung is not None and waits:
        yield rung


def _is_for_this_host(step_run: StepRun) -> bool:
    """Whether this host is the run's. The first host that asks becomes it."""
    outermost = lineage(step_run.run)[-1]
    if not outermost.host:
        Run.objects.filter(pk=outermost.pk, host="").update(host=settings.HOST_NAME)
        outermost.refresh_from_db(fields=["host"])
    if outermost.host != settings.HOST_NAME:
        ring_execute(step_run.pk, host=outermost.host)
        return False
    return True


@transaction.atomic
def _claim(step_run: StepRun) -> leases.Lease | None:
    """The lease, unless the run is held; the step run moves to RUNNING with the first one, in the same transaction.

    The run's lock makes an order: a pause or cancel either is seen here, or sees the claim. What nobody has ever
    claimed is left to the cancel's own turn; what somebody has is claimed to be stopped.
    """
    hold = hold_on(step_run.run_id)
    locked = StepRun.objects.select_for_update(of=("self",)).select_related("execution").get(pk=step_run.pk)
    execution = locked.execution
    if execution is None or locked.is_final:
        return None
    is_new = locked.status == StepStatus.QUEUED
    if is_new and (hold is Hold.PAUSE or (hold is Hold.STOP and not execution.lease_token)):
        return None
    if hold is Hold.STOP:
        request_stop(execution_id=execution.pk, reason=Reason.CANCELLED)
    lease = leases.claim(execution.pk, owner=settings.WORKER_NAME, host=settings.HOST_NAME)
    if lease is not None and not (hold is Hold.STOP and is_new):
        _mark_running(step_run, lease)
    fault("running.before_commit")
    return lease


def _mark_running(step_run: StepRun, lease: leases.Lease) -> None:
    """Move to RUNNING at the first claim; a later claim, after a worker's death, is told in the log."""
    if transition(step_run, StepStatus.RUNNING, moves=STEP_MOVES, started_at=DatabaseClock()):
        append(step_run.run.stream, [NewEvent("step_started", {**tags(step_run), "host": settings.HOST_NAME})])
    else:
        append(step_run.run.stream, [NewEvent("step_adopted", {**tags(step_run), "lease": lease.token})])
