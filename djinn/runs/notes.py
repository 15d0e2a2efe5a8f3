"""Words for agents: what steps notify them of, and what people add; they stand in the next prompt."""

from __future__ import annotations

from collections.abc import Mapping

from django.db.models import Q

from djinn.pipelines.errors import TemplateInvalid
from djinn.pipelines.flow import Tell
from djinn.pipelines.names import names_for
from djinn.pipelines.schema import Step
from djinn.pipelines.template import render
from djinn.runs.models import Note, Run, StepRun
from djinn.runs.turn import Turn, tags

LONGEST_NOTE = 20_000


def tell_agent(turn: Turn, tell: Tell) -> None:
    """Store what a step's result tells an agent, with its event."""
    source = turn.run.step_runs.get(number=tell.source)
    at = turn.history[tell.source - 1]
    names = names_for(turn.pipeline, turn.history, turn.run.inputs, turn.step_of(source), at)
    try:
        text = render(tell.message, names).text[:LONGEST_NOTE]
    except TemplateInvalid as exc:
        turn.tell("notice", text=f"a message to {tell.agent} cannot be filled in: {exc}", **tags(source))
        return
    Note.objects.create(run=turn.run, agent=tell.agent, text=text, source=source)
    turn.tell("notified", **tags(source), agent=tell.agent, text=text)


def notes_for(step_run: StepRun, step: Step) -> list[Note]:
    """The notes that belong into the prompt of this step run, oldest first."""
    mine = Q(step=step.id) | (Q(agent=step.agent) if step.agent else Q(pk=None))
    free_or_ours = Q(read_by=None) | _read_in_visit_of(step_run)
    return list(Note.objects.filter(mine, free_or_ours, run=step_run.run_id).order_by("pk"))


def mark_read(step_run: StepRun, notes: list[Note]) -> int:
    """Let nobody else find these notes; retries of the same visit still do. How many of them it may have: fewer than
    all when another step of the agent has taken some since they were looked at. They are locked."""
    numbers = [note.pk for note in notes]
    locked = Note.objects.select_for_update().filter(pk__in=numbers, read_by=None).order_by("pk")
    Note.objects.filter(pk__in=[note.pk for note in locked]).update(read_by=step_run)
    return Note.objects.filter(_read_in_visit_of(step_run), pk__in=numbers).count()


def _read_in_visit_of(step_run: StepRun) -> Q:
    return Q(read_by__step=step_run.step, read_by__item=step_run.item, read_by__visit=step_run.visit)


def copy_notes(old: Run, new: Run, copies: Mapping[int, StepRun]) -> None:
    """Let the new run, whose first step runs are copies by the key of the old one's, know what was not read before.

    What the last copy says itself is left out: the flow says it again.
    """
    last = max((copy.number for copy in copies.values()), default=0)
    for note in old.notes.order_by("pk"):
        source = copies.get(note.source_id or 0)
        is_said_again = note.source_id is not None and (source is None or source.number == last)
        if note.read_by_id in copies or is_said_again:
            continue
        Note.objects.create(
            run=new, step=note.step, agent=note.agent, text=note.text, created_by=note.created_by, source=source
        )
