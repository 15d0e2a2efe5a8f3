"""A turn of a run: one transaction under its lock, with the events and the rings that belong to what it changes.

Locks are taken in one order: run, step run, execution, and last the stream, by appending to it at the end of the turn.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from django.db import transaction

from djinn.core.faults import fault
from djinn.core.transition import transition
from djinn.events.log import NewEvent, append
from djinn.executions.lease import DatabaseClock
from djinn.pipelines.history import Past
from djinn.pipelines.schema import Pipeline, Step, from_snapshot
from djinn.runs.histories import history_of, past_of
from djinn.runs.models import Run, StepRun
from djinn.runs.states import STEP_MOVES, StepStatus

JSON = Any


@dataclass
class Turn:
    """What is done to one locked run. `started` are step runs to be set going once the turn has committed."""

    run: Run
    events: list[NewEvent] = field(default_factory=list)
    started: list[StepRun] = field(default_factory=list)

    @cached_property
    def pipeline(self) -> Pipeline:
        """The run's definition; raises `ValueError` when this version cannot read it."""
        return from_snapshot(self.run.definition)

    @cached_property
    def history(self) -> list[Past]:
        """The run's step runs as the flow sees them; kept true by whoever adds or ends one in this turn."""
        return history_of(self.run)

    def note(self, step_run: StepRun) -> None:
        """Keep the history true: the step run is new, or its status, reason or outputs have changed."""
        self.history[step_run.number - 1 : step_run.number] = [past_of(step_run)]

    def tell(self, kind: str, **data: JSON) -> None:
        """Add an event, to be appended at the end of the turn."""
        self.events.append(NewEvent(kind, data))

    def end_step(self, step_run: StepRun, status: StepStatus, *, was_queued: bool = True, **columns: JSON) -> bool:
        """Make a step run final, with its event, which tells when it is the first one; False when it was already."""
        if not transition(step_run, status, moves=STEP_MOVES, ended_at=DatabaseClock(), **columns):
            return False
        self.note(step_run)
        told = {name: value for name, value in columns.items() if name != "snapshot"}
        told |= {} if was_queued else {"was_queued": False}
        self.tell("step_finished", **tags(step_run), status=str(status), **told)
        return True

    def step_of(self, step_run: StepRun) -> Step:
        """The definition of a step run's step; raises `LookupError`."""
        return self.pipeline.step(step_run.step)


@contextmanager
def turn_of(run_id: int | None, *, is_patient: bool = True) -> Iterator[Turn | None]:
    """A turn of the run; None when it does not exist or has ended, or when somebody else has its turn and we are not
    patient. Must be the outermost block of a transaction."""
    with transaction.atomic():
        run = Run.objects.select_for_update(skip_locked=not is_patient).filter(pk=run_id or 0).first()
        if run is None or run.is_final:
            yield None
            return
        turn = Turn(run)
        yield turn
        fault("turn.before_events")
        if turn.events:
            append(run.stream, turn.events)
        fault("turn.before_commit")


def tags(step_run: StepRun) -> dict[str, JSON]:
    """What tells a reader of an event which step run it is about."""
    return {
        "step_run": step_run.pk,
        "step": step_run.step,
        "item": step_run.item,
        "visit": step_run.visit,
        "attempt": step_run.attempt,
    }
