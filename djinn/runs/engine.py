"""What moves runs: advance, prepare, execute, settle. Each asks the row, does one move in one transaction, and rings.

Locks are taken in one order: run, step run, execution, and last the stream by appending to it.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import structlog
from django.conf import settings
from django.db import transaction
from django.db.models import DurationField, Value

from djinn.core.errors import DjinnError
from djinn.core.transition import transition
from djinn.events.log import NewEvent, append
from djinn.executions import lease as leases
from djinn.executions.lease import DatabaseClock
from djinn.executions.models import Execution
from djinn.executions.places import present_runner
from djinn.executions.services import create_execution, drop_unclaimed, request_stop
from djinn.executions.states import FINAL, ExecutionStatus, Reason
from djinn.executions.supervise import see_through
from djinn.pipelines.flow import Decision, Finish, Start, next_steps
from djinn.pipelines.schema import from_snapshot
from djinn.runs.dispatch import ring_advance, ring_execute
from djinn.runs.models import Run, StepRun
from djinn.runs.orders import execution_columns
from djinn.runs.selectors import history_of
from djinn.runs.states import RUN_MOVES, STEP_MOVES, STEP_OPEN, RunStatus, StepStatus

log = structlog.get_logger(__name__)

MOST_CRASHES = 3
LONGEST_MESSAGE = 4000


def advance_run(run_id: int) -> None:
    """Do what the flow decides for the run now; nothing when it has ended."""
    started: list[int] = []
    with transaction.atomic():
        run = Run.objects.select_for_update().filter(pk=run_id).first()
        if run is not None and not run.is_final:
            started = _advance(run)
    _set_going(started)


def prepare_step(step_run_id: int) -> None:
    """Make the step run's execution, unless it has one. Input that cannot be made fails the step."""
    step_run = StepRun.objects.select_related("run").filter(pk=step_run_id).first()
    if step_run is None or not _is_due(step_run):
        return
    try:
        columns = execution_columns(step_run)
    except DjinnError as exc:
        _fail_unstarted(step_run, Reason.INPUT, str(exc))
        return
    with transaction.atomic():
        locked = StepRun.objects.select_for_update(of=("self",)).select_related("run").get(pk=step_run_id)
        if _is_due(locked):
            locked.execution = create_execution(**columns)
            locked.save(update_fields=["execution"])


def execute_step(step_run_id: int) -> None:
    """Claim the step run's execution and see it through; returns at once when somebody else holds it."""
    step_run = StepRun.objects.select_related("run").filter(pk=step_run_id, status__in=STEP_OPEN).first()
    if step_run is None or step_run.execution_id is None:
        return
    lease = leases.claim(step_run.execution_id, owner=settings.WORKER_NAME, host=settings.HOST_NAME)
    if lease is None:
        return
    with structlog.contextvars.bound_contextvars(run=step_run.run_id, step_run=step_run.pk, step=step_run.step):
        log.info("execution_claimed", execution=lease.execution_id, lease=lease.token)
        _mark_running(step_run, lease.token)
        see_through(lease, present_runner())


def settle_step(step_run_id: int) -> None:
    """Take over how the execution ended, and advance the run, in one transaction."""
    started: list[int] = []
    with transaction.atomic():
        run = Run.objects.select_for_update().filter(step_runs=step_run_id).first()
        if run is None:
            return
        step_run = StepRun.objects.select_for_update(of=("self",)).select_related("execution").get(pk=step_run_id)
        execution = step_run.execution
        if step_run.is_final or execution is None or not execution.is_final:
            return
        _settle(run, step_run, execution)
        if not run.is_final:
            started = _advance(run)
    _set_going(started)


def note_crash(step_run_id: int) -> None:
    """The engine itself failed on this row: the sweep rings again, and the third time the step fails."""
    started: list[int] = []
    with transaction.atomic():
        run = Run.objects.select_for_update().filter(step_runs=step_run_id).first()
        if run is None:
            return
        step_run = StepRun.objects.select_for_update(of=("self",)).get(pk=step_run_id)
        if step_run.is_final:
            return
        step_run.crashes += 1
        step_run.save(update_fields=["crashes"])
        log.error("step_crashed", run=run.pk, step_run=step_run.pk, crashes=step_run.crashes)
        if step_run.crashes < MOST_CRASHES:
            return
        if step_run.execution_id is not None:
            request_stop(execution_id=step_run.execution_id, reason=Reason.ERROR)
        message = f"the engine failed {MOST_CRASHES} times on this step; the workers' logs tell why"
        _end_step(run, step_run, StepStatus.FAILED, reason=Reason.ERROR, message=message)
        started = _advance(run)
    _set_going(started)


def _advance(run: Run) -> list[int]:
    """Apply the flow's decisions; the step runs that may begin now. The run's row is locked."""
    started = []
    is_cancelled = run.cancel_requested_at is not None
    if is_cancelled:
        _stop_open_steps(run)
    for decision in _decisions(run, is_cancelled=is_cancelled):
        if isinstance(decision, Start):
            step_run = _start_step(run, decision)
            started += [] if step_run.not_before else [step_run.pk]
        elif isinstance(decision, Finish):
            _finish(run, decision)
    return started


def _set_going(step_runs: list[int]) -> None:
    """Prepare what was just created in this very process, and ring for the rest of its chain.

    A process that dies here leaves queued step runs behind; the sweep rings their whole chain.
    """
    for pk in step_runs:
        prepare_step(pk)
        step_run = StepRun.objects.select_related("execution").get(pk=pk)
        if step_run.execution is not None:
            ring_execute(pk, host=step_run.execution.host)


def _decisions(run: Run, *, is_cancelled: bool) -> tuple[Decision, ...]:
    """What the flow decides; a snapshot that this version cannot read ends the run once nothing of it is open."""
    history = history_of(run)
    try:
        return next_steps(from_snapshot(run.definition), history, cancelled=is_cancelled)
    except (ValueError, LookupError, TypeError, AttributeError) as exc:
        log.exception("run_undecidable", run=run.pk)
        if not all(past.status.is_final for past in history):
            return ()
        return (Finish("failed", Reason.ERROR, f"what comes next cannot be decided: {str(exc)[:500]}"),)


def _start_step(run: Run, start: Start) -> StepRun:
    delay = Value(timedelta(seconds=start.delay_seconds), output_field=DurationField())
    step_run = StepRun.objects.create(
        run=run,
        number=run.step_runs.count() + 1,
        step=start.step,
        visit=start.visit,
        attempt=start.attempt,
        because=start.because[:300],
        not_before=DatabaseClock() + delay if start.delay_seconds else None,
        queued_at=DatabaseClock(),
    )
    is_first = run.status == RunStatus.QUEUED
    if is_first and transition(run, RunStatus.RUNNING, moves=RUN_MOVES, started_at=DatabaseClock()):
        append(run.stream, [NewEvent("run_started")])
    data = {**_tags(step_run), "because": start.because, "delay_seconds": start.delay_seconds}
    append(run.stream, [NewEvent("step_queued", data)])
    return step_run


def _finish(run: Run, finish: Finish) -> None:
    last = run.step_runs.order_by("-number").first()
    message = finish.message
    if finish.status == "failed" and last is not None and last.message:
        message = f"{message} ({last.message})"
    columns: dict[str, Any] = {"reason": finish.reason, "message": message[:LONGEST_MESSAGE]}
    if transition(run, RunStatus(finish.status), moves=RUN_MOVES, ended_at=DatabaseClock(), **columns):
        append(
            run.stream,
            [NewEvent("run_finished", {"status": finish.status, "reason": finish.reason, "message": message})],
        )
        log.info("run_finished", run=run.pk, status=finish.status, reason=finish.reason)


def _settle(run: Run, step_run: StepRun, execution: Execution) -> None:
    outcome: dict[str, Any] = execution.outcome or {}
    outputs = outcome.get("outputs")
    is_success = execution.status == ExecutionStatus.EXITED and not execution.reason
    status = StepStatus.SUCCEEDED if is_success else StepStatus.FAILED
    if execution.reason == Reason.CANCELLED:
        status = StepStatus.CANCELLED
    _end_step(
        run,
        step_run,
        status,
        reason=execution.reason,
        message=execution.message,
        outputs=outputs if is_success and isinstance(outputs, dict) else {},
        summary=str(outcome.get("summary") or ""),
    )


def _end_step(run: Run, step_run: StepRun, status: StepStatus, **columns: Any) -> None:
    if transition(step_run, status, moves=STEP_MOVES, ended_at=DatabaseClock(), **columns):
        data = {**_tags(step_run), "status": str(status), **columns}
        append(run.stream, [NewEvent("step_finished", data)])


def _stop_open_steps(run: Run) -> None:
    """Apply a cancel: what no worker holds ends here, the rest when its worker sees the request."""
    for step_run in (
        run.step_runs.select_for_update(of=("self",)).filter(status__in=STEP_OPEN).select_related("execution")
    ):
        execution = step_run.execution
        if execution is None or drop_unclaimed(execution=execution, reason=Reason.CANCELLED):
            _end_step(run, step_run, StepStatus.CANCELLED, reason=Reason.CANCELLED, message="cancelled before it began")
        elif execution.status not in FINAL:
            request_stop(execution_id=execution.pk, reason=Reason.CANCELLED)


@transaction.atomic
def _fail_unstarted(step_run: StepRun, reason: Reason, message: str) -> None:
    run = Run.objects.select_for_update().get(pk=step_run.run_id)
    _end_step(run, step_run, StepStatus.FAILED, reason=reason, message=message)
    ring_advance(run.pk)


@transaction.atomic
def _mark_running(step_run: StepRun, lease_token: int) -> None:
    """Move to RUNNING at the first claim; a later claim, after a worker's death, is told in the log."""
    if transition(step_run, StepStatus.RUNNING, moves=STEP_MOVES, started_at=DatabaseClock()):
        append(step_run.run.stream, [NewEvent("step_started", {**_tags(step_run), "host": settings.HOST_NAME})])
    else:
        append(step_run.run.stream, [NewEvent("step_adopted", {**_tags(step_run), "lease": lease_token})])


def _is_due(step_run: StepRun) -> bool:
    return (
        step_run.status == StepStatus.QUEUED
        and step_run.execution_id is None
        and step_run.run.cancel_requested_at is None
    )


def _tags(step_run: StepRun) -> dict[str, Any]:
    """What tells a reader of an event which step run it is about."""
    return {"step_run": step_run.pk, "step": step_run.step, "visit": step_run.visit, "attempt": step_run.attempt}
