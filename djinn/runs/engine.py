"""What moves runs: advance, prepare, execute, settle. Each asks the row, makes one move in one turn, and rings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import structlog
from django.conf import settings
from django.db import transaction

from djinn.core.faults import fault
from djinn.core.transition import transition
from djinn.events.log import NewEvent, append
from djinn.executions import lease as leases
from djinn.executions.lease import DatabaseClock
from djinn.executions.models import Execution
from djinn.executions.places import present_runner
from djinn.executions.services import request_stop
from djinn.executions.states import ExecutionStatus, Reason
from djinn.executions.supervise import see_through
from djinn.pipelines.names import outputs_of
from djinn.pipelines.results import unmatched
from djinn.pipelines.schema import Step, from_snapshot
from djinn.pipelines.structured import outputs_from
from djinn.runs.advance import advance
from djinn.runs.children import cancel_child, is_paused, lineage
from djinn.runs.dispatch import ring_execute, ring_settle
from djinn.runs.models import Run, StepRun
from djinn.runs.preparing import prepare_step, set_going
from djinn.runs.selectors import history_of
from djinn.runs.states import RUN_FINAL, STEP_MOVES, STEP_OPEN, RunStatus, StepStatus
from djinn.runs.turn import Turn, tags, turn_of
from djinn.runs.urgency import most_urgent
from runtime_image.djinn_runtime.protocol import ANSWER

__all__ = ["advance_run", "execute_step", "note_crash", "prepare_step", "settle_step"]

log = structlog.get_logger(__name__)

MOST_CRASHES = 3
MOST_LOOKS = 3


def advance_run(run_id: int) -> None:
    """Do what the flow decides for the run now; nothing when it has ended."""
    with turn_of(run_id) as turn:
        if turn is None:
            return
        advance(turn)
    fault("advance.after_commit")
    set_going(turn)


def execute_step(step_run_id: int) -> None:
    """Claim an execution and see it through; returns at once when there is none to claim.

    A ring says that something waits, not what: the most urgent one is taken.
    """
    for chosen in _candidates(_open_step_run(step_run_id)):
        lease = _claim(chosen)
        if lease is not None:
            break
    else:
        return
    with structlog.contextvars.bound_contextvars(run=chosen.run_id, step_run=chosen.pk, step=chosen.step):
        log.info("execution_claimed", execution=lease.execution_id, lease=lease.token)
        _mark_running(chosen, lease)
        see_through(lease, present_runner())
    if chosen.pk != step_run_id:
        ring_settle(chosen.pk)


def settle_step(step_run_id: int) -> None:
    """Take over how the execution, or the used pipeline's run, ended, and advance the run, in one transaction."""
    run_id = StepRun.objects.filter(pk=step_run_id).values_list("run_id", flat=True).first()
    with turn_of(run_id) as turn:
        if turn is None:
            return
        step_run = StepRun.objects.select_for_update().get(pk=step_run_id)
        if step_run.is_final or not _settle(turn, step_run):
            return
        advance(turn)
        fault("settle.before_commit")
    fault("settle.after_commit")
    set_going(turn)


def note_crash(step_run_id: int) -> None:
    """The engine itself failed on this row: the sweep rings again, and the third time the step fails."""
    run_id = StepRun.objects.filter(pk=step_run_id).values_list("run_id", flat=True).first()
    with turn_of(run_id) as turn:
        if turn is None:
            return
        step_run = StepRun.objects.select_for_update(of=("self",)).get(pk=step_run_id)
        if step_run.is_final:
            return
        step_run.crashes += 1
        step_run.save(update_fields=["crashes"])
        fault("crash.before_commit")
        log.error("step_crashed", run=step_run.run_id, step_run=step_run.pk, crashes=step_run.crashes)
        if step_run.crashes < MOST_CRASHES:
            return
        if step_run.execution_id is not None:
            request_stop(execution_id=step_run.execution_id, reason=Reason.ERROR)
        cancel_child(step_run)
        message = f"the engine failed {MOST_CRASHES} times on this step; the workers' logs tell why"
        turn.end_step(step_run, StepStatus.FAILED, reason=Reason.ERROR, message=message)
    advance_run(turn.run.pk)  # in a turn of its own: what fails there does not undo the count


# --- Executing --------------------------------------------------------------------------------------------------------
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


def _claim(step_run: StepRun) -> leases.Lease | None:
    if step_run.execution_id is None or not _may_claim(step_run):
        return None
    return leases.claim(step_run.execution_id, owner=settings.WORKER_NAME, host=settings.HOST_NAME)


def _may_claim(step_run: StepRun) -> bool:
    """Whether this host is the run's, and nobody holds new work back. The first host that asks becomes the run's."""
    outermost = lineage(step_run.run)[-1]
    if not outermost.host:
        Run.objects.filter(pk=outermost.pk, host="").update(host=settings.HOST_NAME)
        outermost.refresh_from_db(fields=["host"])
    if outermost.host != settings.HOST_NAME:
        ring_execute(step_run.pk, host=outermost.host)
        return False
    is_new = step_run.status == StepStatus.QUEUED
    return not (is_new and is_paused(step_run.run))


@transaction.atomic
def _mark_running(step_run: StepRun, lease: leases.Lease) -> None:
    """Move to RUNNING at the first claim; a later claim, after a worker's death, is told in the log.

    When the step run has ended meanwhile, its execution shall stop before anything of it begins.
    """
    if transition(step_run, StepStatus.RUNNING, moves=STEP_MOVES, started_at=DatabaseClock()):
        append(step_run.run.stream, [NewEvent("step_started", {**tags(step_run), "host": settings.HOST_NAME})])
    elif StepRun.objects.filter(pk=step_run.pk, status__in=STEP_OPEN).exists():
        append(step_run.run.stream, [NewEvent("step_adopted", {**tags(step_run), "lease": lease.token})])
    else:
        request_stop(execution_id=lease.execution_id, reason=Reason.CANCELLED)
    fault("running.before_commit")


# --- Settling ---------------------------------------------------------------------------------------------------------
def _settle(turn: Turn, step_run: StepRun) -> bool:
    """Make the step run as final as what it was waiting for; False when that has not ended."""
    execution = step_run.execution
    if execution is not None:
        return execution.is_final and _settle_execution(turn, step_run, execution)
    child = Run.objects.filter(parent=step_run, status__in=RUN_FINAL).first()
    return child is not None and _settle_child(turn, step_run, child)


def _settle_execution(turn: Turn, step_run: StepRun, execution: Execution) -> bool:
    outcome: dict[str, Any] = execution.outcome or {}
    is_success = execution.status == ExecutionStatus.EXITED and not execution.reason
    outputs = _outputs(turn.step_of(step_run), outcome)
    if is_success and _unmatched(turn, step_run, outputs, summary=str(outcome.get("summary") or "")):
        return True
    status = StepStatus.SUCCEEDED if is_success else StepStatus.FAILED
    if execution.reason == Reason.CANCELLED:
        status = StepStatus.CANCELLED
    return turn.end_step(
        step_run,
        status,
        reason=execution.reason,
        message=execution.message,
        outputs=outputs,
        summary=str(outcome.get("summary") or ""),
        snapshot=execution.result_snapshot if is_success else "",
    )


def _outputs(step: Step, outcome: dict[str, Any]) -> dict[str, Any]:
    """What the execution has given, all of it or as far as it came."""
    outputs = outcome.get("outputs")
    found: dict[str, Any] = outputs if isinstance(outputs, dict) else {}
    if step.output_schema is None or ANSWER not in found:
        return found if step.output_schema is None else {}
    return dict(outputs_from(found[ANSWER], step.outputs, step.output_schema.schema))


def _unmatched(turn: Turn, step_run: StepRun, outputs: dict[str, Any], **columns: Any) -> bool:
    """End a step run that has succeeded as failed, when its result has to be a key of `onResult` and is none."""
    problem = unmatched(turn.step_of(step_run), outputs)
    return bool(problem) and turn.end_step(
        step_run, StepStatus.FAILED, reason=Reason.UNMATCHED, message=problem, outputs=outputs, **columns
    )


def _settle_child(turn: Turn, step_run: StepRun, child: Run) -> bool:
    if child.status == RunStatus.SUCCEEDED:
        step = turn.step_of(step_run)
        found = outputs_of(from_snapshot(child.definition), history_of(child))
        outputs = {name: found[name] for name in step.outputs if name in found} if step.outputs else found
        if _unmatched(turn, step_run, outputs):
            return True
        return turn.end_step(step_run, StepStatus.SUCCEEDED, outputs=outputs, summary=f"run {child.pk} succeeded")
    if child.status == RunStatus.CANCELLED:
        message = f"run {child.pk} was cancelled"
        return turn.end_step(step_run, StepStatus.CANCELLED, reason=Reason.CANCELLED, message=message)
    message = f"run {child.pk} of {child.pipeline} failed: {child.message}"
    return turn.end_step(step_run, StepStatus.FAILED, reason=Reason.CHILD, message=message[:4000])
