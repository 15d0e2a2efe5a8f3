"""Preparing a step run: its execution, a question to people, or a run of the pipeline that it uses."""

from __future__ import annotations

from collections import deque

from django.db import transaction

from djinn.core.errors import DjinnError
from djinn.core.faults import fault
from djinn.core.transition import transition
from djinn.events.log import NewEvent, append
from djinn.executions.lease import DatabaseClock
from djinn.executions.models import Execution
from djinn.executions.services import create_execution
from djinn.executions.states import Reason
from djinn.pipelines.history import History
from djinn.pipelines.schema import Pipeline, Step, from_snapshot
from djinn.runs import approvals
from djinn.runs.advance import advance
from djinn.runs.budgets import OutOfTime
from djinn.runs.children import start_child
from djinn.runs.dispatch import ring_execute
from djinn.runs.histories import history_of
from djinn.runs.holds import cancelled_at
from djinn.runs.models import StepRun
from djinn.runs.notes import mark_read, notes_for
from djinn.runs.orders import Order, names_of, order_of
from djinn.runs.states import STEP_MOVES, StepStatus
from djinn.runs.turn import Turn, tags, turn_of


def set_going(turn: Turn) -> None:
    """Prepare what a turn that has committed has created, in this very process, and ring for the rest of its chain.

    A process that dies here leaves queued step runs behind; the sweep rings their whole chain.
    """
    waiting = deque((step_run, turn) for step_run in turn.started)
    while waiting:
        step_run, its_turn = waiting.popleft()
        fault("step.created")
        made = _prepare(step_run, its_turn.pipeline, its_turn.history)
        fault("step.prepared")
        if isinstance(made, Execution):
            ring_execute(step_run.pk, host=made.host)
        elif made is not None:
            waiting.extend((started, made) for started in made.started)
        fault("step.rung")


def prepare_step(step_run_id: int) -> None:
    """Make what the step run needs, unless it has it. Input that cannot be made fails the step."""
    step_run = StepRun.objects.select_related("run").filter(pk=step_run_id).first()
    if step_run is None or not _is_due(step_run):
        return
    made = _prepare(step_run, None, None)
    if isinstance(made, Turn):
        set_going(made)


def _prepare(step_run: StepRun, pipeline: Pipeline | None, history: History | None) -> Execution | Turn | None:
    """Prepare: the execution that the step run has got, or the turn that it came to instead; None when neither."""
    try:
        pipeline = pipeline or from_snapshot(step_run.run.definition)
        step = pipeline.step(step_run.step)
        if step.needs_container:
            history = history_of(step_run.run) if history is None else history
            return _store_newest(step_run, pipeline, history)
        return _begin_without_container(step_run, step)
    except OutOfTime as exc:
        return _fail(step_run, Reason.BUDGET, str(exc))
    except (DjinnError, LookupError, ValueError) as exc:
        return _fail(step_run, Reason.INPUT, str(exc))


def _store_newest(step_run: StepRun, pipeline: Pipeline, history: History) -> Execution | None:
    """Store the order; made again when somebody added a note to it meanwhile."""
    while True:
        try:
            return _store_execution(step_run, order_of(step_run, pipeline, history))
        except _Outdated:
            continue


class _Outdated(Exception):
    """There are other notes for the prompt than those that stand in it."""


@transaction.atomic
def _store_execution(step_run: StepRun, order: Order) -> Execution | None:
    locked = StepRun.objects.select_for_update(of=("self",)).select_related("run").get(pk=step_run.pk)
    if not _is_due(locked):
        return None
    if order.step.kind == "agent" and notes_for(locked, order.step) != order.notes:
        raise _Outdated
    locked.execution = create_execution(**order.columns)
    locked.save(update_fields=["execution"])
    fault("prepare.before_commit")
    if mark_read(locked, order.notes) < len(order.notes):
        raise _Outdated
    if order.notices:
        append(locked.run.stream, [NewEvent("notice", {"text": text, **tags(locked)}) for text in order.notices])
    return locked.execution


def _begin_without_container(step_run: StepRun, step: Step) -> Turn | None:
    """Ask people, or start the pipeline that the step uses, in one turn of the run."""
    with turn_of(step_run.run_id) as turn:
        if turn is None:
            return None
        locked = _locked(turn, step_run)
        if not _is_due(locked):
            return None
        names = names_of(locked, turn.pipeline, turn.history)
        if step.kind == "approve":
            transition(locked, StepStatus.WAITING, moves=STEP_MOVES, started_at=DatabaseClock())
            turn.note(locked)
            turn.tell("step_waiting", **tags(locked))
            approvals.ask(turn, locked, step, names)
        else:
            child = start_child(locked, step, names)
            transition(locked, StepStatus.RUNNING, moves=STEP_MOVES, started_at=DatabaseClock())
            turn.note(locked)
            turn.tell("step_started", **tags(locked), child=child.pk)
        advance(turn)
    return turn


def _fail(step_run: StepRun, reason: Reason, message: str) -> Turn | None:
    """Fail what is still to be begun: somebody else may have prepared it, or ended it, meanwhile."""
    with turn_of(step_run.run_id) as turn:
        if turn is None:
            return None
        locked = _locked(turn, step_run)
        if not _is_due(locked):
            return None
        turn.end_step(locked, StepStatus.FAILED, reason=reason, message=message)
        advance(turn)
    return turn


def _locked(turn: Turn, step_run: StepRun) -> StepRun:
    locked = StepRun.objects.select_for_update().get(pk=step_run.pk)
    locked.run = turn.run
    return locked


def _is_due(step_run: StepRun) -> bool:
    return step_run.status == StepStatus.QUEUED and step_run.execution_id is None and cancelled_at(step_run.run) is None
