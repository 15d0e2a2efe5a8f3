"""What moves runs: advance, prepare, execute, settle. Each asks the row, makes one move in one turn, and rings."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import structlog

from djinn.core.faults import fault
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
from djinn.runs.children import cancel_child
from djinn.runs.claiming import claim_next
from djinn.runs.dispatch import ring_settle
from djinn.runs.histories import history_of
from djinn.runs.holds import cancelled_at
from djinn.runs.models import Run, StepRun
from djinn.runs.preparing import prepare_step, set_going
from djinn.runs.states import RUN_FINAL, RunStatus, StepStatus
from djinn.runs.turn import Turn, turn_of
from runtime_image.djinn_runtime.protocol import ANSWER

__all__ = ["advance_run", "execute_step", "note_crash", "prepare_step", "settle_step"]

log = structlog.get_logger(__name__)

MOST_CRASHES = 3


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
    claimed = claim_next(step_run_id)
    if claimed is None:
        return
    chosen, lease = claimed
    with structlog.contextvars.bound_contextvars(run=chosen.run_id, step_run=chosen.pk, step=chosen.step):
        log.info("execution_claimed", execution=lease.execution_id, lease=lease.token)
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
    if is_success and _came_too_late(turn, execution.ended_at):
        return _cancel_late(turn, step_run, f"execution {execution.pk}")
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


def _came_too_late(turn: Turn, ended_at: datetime | None) -> bool:
    """Whether a cancel was stored before this success was: then it is none."""
    cancelled = cancelled_at(turn.run)
    return cancelled is not None and ended_at is not None and ended_at > cancelled


def _cancel_late(turn: Turn, step_run: StepRun, what: str) -> bool:
    message = f"cancelled; {what} succeeded before it was stopped"
    return turn.end_step(step_run, StepStatus.CANCELLED, reason=Reason.CANCELLED, message=message)


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
    if child.status == RunStatus.SUCCEEDED and _came_too_late(turn, child.ended_at):
        return _cancel_late(turn, step_run, f"run {child.pk}")
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
