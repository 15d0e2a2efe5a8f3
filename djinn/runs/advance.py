"""Applying what the flow decides to a run whose row is locked."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import structlog
from django.db.models import DurationField, Value

from djinn.core.transition import transition
from djinn.executions.lease import DatabaseClock
from djinn.executions.services import drop_unclaimed, request_stop
from djinn.executions.states import FINAL, Reason
from djinn.pipelines.flow import Blocked, Decision, Finish, Refuse, Skip, Start, Status, Tell, next_steps
from djinn.pipelines.results import DECISION, takes_rejection
from djinn.runs import admission, approvals
from djinn.runs.children import cancel_child, hear_from_above
from djinn.runs.dispatch import ring_settle
from djinn.runs.holds import is_paused
from djinn.runs.models import StepRun
from djinn.runs.notes import tell_agent
from djinn.runs.states import RUN_MOVES, STEP_OPEN, RunStatus, StepStatus
from djinn.runs.turn import Turn, tags

log = structlog.get_logger(__name__)

LONGEST_MESSAGE = 4000
COMMENT = "COMMENT"


def advance(turn: Turn) -> None:
    """Do what the flow decides now, until it has nothing more to say but what waits for what."""
    hear_from_above(turn)
    if turn.run.cancel_requested_at is not None:
        _stop_open_steps(turn)
    elif turn.run.status == RunStatus.QUEUED and not admission.admit(turn.run):
        return
    else:
        _take_verdicts(turn)
    while _apply(turn, _decisions(turn)):
        pass
    if not turn.run.is_final:
        _show_status(turn)


def _apply(turn: Turn, decisions: tuple[Decision, ...]) -> bool:
    """Apply the decisions; whether the flow has to be asked again, since something ended by them."""
    for decision in decisions:
        if isinstance(decision, Start):
            _start(turn, decision)
        elif isinstance(decision, Skip):
            _skip(turn, decision)
        elif isinstance(decision, Refuse):
            _refuse(turn, decision)
        elif isinstance(decision, Tell):
            tell_agent(turn, decision)
        elif isinstance(decision, Finish):
            finish(turn, decision)
    return not turn.run.is_final and any(isinstance(decision, (Skip, Refuse)) for decision in decisions)


def _decisions(turn: Turn) -> tuple[Decision, ...]:
    """What the flow decides; a snapshot that this version cannot read ends the run once nothing of it is open."""
    run = turn.run
    try:
        return next_steps(
            turn.pipeline,
            turn.history,
            inputs=run.inputs,
            cancelled=run.cancel_requested_at is not None,
            paused=is_paused(run),
        )
    except (ValueError, LookupError, TypeError, AttributeError) as exc:
        log.exception("run_undecidable", run=run.pk)
        if run.step_runs.filter(status__in=STEP_OPEN).exists():
            return (Blocked("", "what comes next cannot be decided"),)
        return (Finish("failed", Reason.ERROR, f"what comes next cannot be decided: {str(exc)[:500]}"),)


# --- Step runs --------------------------------------------------------------------------------------------------------
def _start(turn: Turn, start: Start) -> None:
    delay = Value(timedelta(seconds=start.delay_seconds), output_field=DurationField())
    step_run = _new(
        turn,
        start,
        attempt=start.attempt,
        lane=start.lane,
        item_value=start.item_value,
        not_before=DatabaseClock() + delay if start.delay_seconds else None,
        because=start.because[:300],
    )
    turn.tell("step_queued", **tags(step_run), because=start.because, delay_seconds=start.delay_seconds)
    if not start.delay_seconds:
        turn.started.append(step_run)


def _skip(turn: Turn, skip: Skip) -> None:
    step_run = _new(
        turn,
        skip,
        attempt=1,
        item_value=skip.item_value,
        status=StepStatus.SKIPPED,
        ended_at=DatabaseClock(),
        because=skip.because[:300],
    )
    turn.tell("step_skipped", **tags(step_run), because=skip.because)


def _refuse(turn: Turn, refuse: Refuse) -> None:
    step_run = _new(turn, refuse, attempt=refuse.attempt)
    why = {"reason": refuse.reason, "message": refuse.message[:LONGEST_MESSAGE]}
    turn.end_step(step_run, StepStatus.FAILED, was_queued=False, **why)


def _new(turn: Turn, decision: Start | Skip | Refuse, **columns: Any) -> StepRun:
    run = turn.run
    if run.status == RunStatus.QUEUED and transition(
        run, RunStatus.RUNNING, moves=RUN_MOVES, started_at=DatabaseClock()
    ):
        turn.tell("run_started")
    step_run = StepRun.objects.create(
        run=run,
        number=len(turn.history) + 1,
        step=decision.step,
        item=decision.item,
        visit=decision.visit,
        bases=list(decision.bases),
        queued_at=DatabaseClock(),
        **columns,
    )
    turn.note(step_run)
    return step_run


# --- The run ----------------------------------------------------------------------------------------------------------
def finish(turn: Turn, end: Finish) -> None:
    """End the run, with its event; rings for whoever waits for it."""
    run = turn.run
    failed = run.step_runs.filter(status=StepStatus.FAILED, step=end.step, item=end.item).order_by("-number")
    message = end.message
    if end.step:
        message += f": {failed.values_list('message', flat=True).first() or end.reason}"
    columns: dict[str, Any] = {"reason": end.reason, "message": message[:LONGEST_MESSAGE]}
    if not transition(run, RunStatus(end.status), moves=RUN_MOVES, ended_at=DatabaseClock(), **columns):
        return
    turn.tell("run_finished", status=end.status, reason=end.reason, message=message)
    log.info("run_finished", run=run.pk, status=end.status, reason=end.reason)
    if run.parent_id is not None:
        ring_settle(run.parent_id)
    if run.group:
        admission.ring_next(run.group)


def _show_status(turn: Turn) -> None:
    """Let the run's status say what it is doing: running, paused, or waiting for people alone."""
    run = turn.run
    if run.status == RunStatus.QUEUED:
        return
    statuses = {past.status for past in turn.history if not past.status.is_final}
    wanted = RunStatus.WAITING if statuses == {Status.WAITING} else RunStatus.RUNNING
    wanted = RunStatus.PAUSED if is_paused(run) else wanted
    was = run.status
    if wanted == was or not transition(run, wanted, moves=RUN_MOVES):
        return
    if wanted == RunStatus.PAUSED:
        turn.tell("run_paused")
    elif was == RunStatus.PAUSED:
        turn.tell("run_resumed")
    if wanted == RunStatus.WAITING:
        turn.tell("run_waiting")


def _stop_open_steps(turn: Turn) -> None:
    """Apply a cancel: what no worker holds ends here, the rest when its worker sees the request."""
    for step_run in turn.run.step_runs.select_for_update().filter(status__in=STEP_OPEN).order_by("number"):
        execution = step_run.execution  # read behind the lock: a join would show it as it was before we waited
        if execution is not None and execution.status in FINAL:
            continue  # it is settled as it ended
        if execution is None and cancel_child(step_run):
            continue
        if execution is None or drop_unclaimed(execution=execution, reason=Reason.CANCELLED):
            _cancel_step(turn, step_run)
        else:
            request_stop(execution_id=execution.pk, reason=Reason.CANCELLED)


def _cancel_step(turn: Turn, step_run: StepRun) -> None:
    approvals.void_open(step_run, "the run was cancelled", turn=turn)
    turn.end_step(step_run, StepStatus.CANCELLED, reason=Reason.CANCELLED, message="cancelled before it began")


# --- Approvals --------------------------------------------------------------------------------------------------------
def _take_verdicts(turn: Turn) -> None:
    """End the step runs that people have decided on."""
    if all(past.status is not Status.WAITING for past in turn.history):
        return
    for step_run in turn.run.step_runs.filter(status=StepStatus.WAITING).order_by("number"):
        verdict = approvals.verdict_of(step_run)
        if verdict is not None:
            _end_approval(turn, step_run, verdict)


def _end_approval(turn: Turn, step_run: StepRun, verdict: approvals.Verdict) -> None:
    step = turn.step_of(step_run)
    name = step.outputs[0] if step.outputs else DECISION
    outputs = {name: verdict.status, COMMENT: verdict.comment}
    routes_on = verdict.status == "rejected" and takes_rejection(step)
    who = f" by {', '.join(verdict.by)}" if verdict.by else ""
    told = f"{verdict.status}{who}" + (f": {verdict.comment}" if verdict.comment else "")
    if verdict.status == "approved" or routes_on:
        turn.end_step(step_run, StepStatus.SUCCEEDED, outputs=outputs, summary=told)
        return
    reason = Reason.EXPIRED if verdict.status == "expired" else Reason.REJECTED
    turn.end_step(step_run, StepStatus.FAILED, reason=reason, message=told[:LONGEST_MESSAGE], outputs=outputs)
