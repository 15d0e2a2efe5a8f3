"""What people want of a run while it is open: each stored as an intent with its event, and applied by the engine."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from django.db import transaction

from djinn.accounts.models import User
from djinn.core.errors import Conflict, UserError
from djinn.documents.report import suggestion
from djinn.events.log import NewEvent, append
from djinn.executions.lease import DatabaseClock
from djinn.pipelines.schema import Pipeline, Step
from djinn.runs.definitions import definition_of
from djinn.runs.dispatch import ring_advance
from djinn.runs.models import Intent, Note, Run
from djinn.runs.notes import LONGEST_NOTE
from djinn.runs.people import name_of
from djinn.runs.reach import may_still_start
from djinn.runs.states import RUN_OPEN, StepStatus

JSON = Any
Verb = Intent.Verb
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


@transaction.atomic
def pause_run(*, run: Run, user: User | None = None) -> Run:
    """Let nothing new start, in the pipelines that it uses neither; what runs goes on. Again is no error.

    Raises `Conflict` when the run has ended or is about to be cancelled.
    """
    locked = locked_open(run)
    if locked.cancel_requested_at is not None:
        raise Conflict(f"Run {run.pk} is being cancelled.")
    if locked.paused_at is None:
        Run.objects.filter(pk=run.pk).update(paused_at=DatabaseClock(), paused_by=user)
        _want(locked, Verb.PAUSE, user, "pause_requested")
        locked.refresh_from_db()
    return locked


@transaction.atomic
def resume_run(*, run: Run, user: User | None = None) -> Run:
    """Let things start again. Again is no error; raises `Conflict` when the run has ended."""
    locked = locked_open(run)
    if locked.paused_at is not None:
        Run.objects.filter(pk=run.pk).update(paused_at=None, paused_by=None)
        _want(locked, Verb.RESUME, user, "resume_requested")
        locked.refresh_from_db()
    return locked


@transaction.atomic
def inject(*, run: Run, text: str, step: str = "", agent: str = "", user: User | None = None) -> Note:
    """Add text to the next prompt of the step, or of the agent, whichever is named.

    Raises `UserError` for a text that is empty or too long, or a step or agent that is not of this pipeline or has no
    prompt, and `Conflict` when the run has ended or is being cancelled, or the step, or all of the agent, has started.
    """
    text = _checked(text)
    locked = locked_open(run)
    if locked.cancel_requested_at is not None:
        raise Conflict(f"Run {run.pk} is being cancelled.")
    pipeline = definition_of(locked)
    if bool(step) == bool(agent):
        raise UserError("Name either a step or an agent.", details={"step": "or agent", "agent": "or step"})
    steps = _steps_of(pipeline, agent) if agent else [_step(pipeline, step)]
    _check_in_time(locked, pipeline, steps, agent)
    note = Note.objects.create(run=locked, step=step, agent=agent, text=text, created_by=user)
    details = {"note": note.pk, "step": step, "agent": agent, "text": text}
    _want(locked, Verb.INJECT, user, "note_added", **details)
    return note


def locked_open(run: Run) -> Run:
    """The run, locked until the transaction ends; raises `Conflict` when it has ended."""
    locked = Run.objects.select_for_update().get(pk=run.pk)
    if locked.is_final:
        raise Conflict(f"Run {run.pk} has ended already: {locked.get_status_display().lower()}.")
    return locked


def _want(run: Run, verb: Verb, user: User | None, event: str, **details: JSON) -> None:
    """Store the intent with its event, and ring for the run and for those that it has started."""
    Intent.objects.create(run=run, verb=verb, by=user, details=details)
    append(run.stream, [NewEvent(event, {"by": name_of(user), **details})])
    for run_id in (run.pk, *_open_below([run.pk])):
        ring_advance(run_id)


def _open_below(run_ids: Iterable[int]) -> list[int]:
    """The open runs that are a part of these."""
    children = list(Run.objects.filter(parent__run__in=run_ids, status__in=RUN_OPEN).values_list("pk", flat=True))
    return children + (_open_below(children) if children else [])


def _checked(text: str) -> str:
    if not text.strip():
        raise UserError("There is no text to add.", details={"text": "must not be empty"})
    if len(text) > LONGEST_NOTE:
        wrong = f"is {len(text)} characters long, at most {LONGEST_NOTE} are allowed"
        raise UserError("The text is too long.", details={"text": wrong})
    if _UNSTORABLE.search(text):
        raise UserError("The text cannot be stored.", details={"text": "holds a NUL or half of a surrogate pair"})
    return text


def _steps_of(pipeline: Pipeline, agent: str) -> list[Step]:
    """The steps that are the agent's work; raises `UserError` when none is."""
    agents = sorted({step.agent for step in pipeline.steps if step.kind == "agent"})
    if agent not in agents:
        wrong = f"is no agent of this pipeline{suggestion(agent, agents)}"
        raise UserError(f"{agent!r} {wrong}.", details={"agent": wrong})
    return [step for step in pipeline.steps if step.kind == "agent" and step.agent == agent]


def _step(pipeline: Pipeline, step_id: str) -> Step:
    """The step, which has a prompt; raises `UserError` when there is no such step."""
    found = [step for step in pipeline.steps if step.id == step_id]
    if not found:
        wrong = f"is no step of this pipeline{suggestion(step_id, [step.id for step in pipeline.steps])}"
        raise UserError(f"{step_id!r} {wrong}.", details={"step": wrong})
    if found[0].kind != "agent":
        raise UserError(f"Step {step_id} has no prompt.", details={"step": "is not the work of an agent"})
    return found[0]


def _check_in_time(run: Run, pipeline: Pipeline, steps: list[Step], agent: str) -> None:
    """Raise `Conflict` unless one of the steps has a prompt before it.

    Its queued step runs are locked first: whoever makes a prompt of one right now either ends before we look, or waits
    for our text.
    """
    queued = run.step_runs.filter(step__in=[step.id for step in steps], status=StepStatus.QUEUED).order_by("number")
    list(queued.select_for_update(of=("self",)))
    if any(may_still_start(run, pipeline, step) for step in steps):
        return
    raise Conflict(f"Agent {agent} has no prompt before it." if agent else f"Step {steps[0].id} has started already.")
