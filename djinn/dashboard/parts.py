"""What a run's page is made of beside the log: the same for everybody who may see it, and sent again live."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from djinn.core.errors import Conflict
from djinn.dashboard.asking import key_of
from djinn.dashboard.selectors import Results, results_of
from djinn.dashboard.steps import StepGroup, groups_of
from djinn.dashboard.texts import shown
from djinn.dashboard.verbs import offers_of
from djinn.executions.retries import retries_of
from djinn.pipelines.history import named
from djinn.runs.artifacts import KeptFile, artifacts_of
from djinn.runs.explanation import Explained, explain
from djinn.runs.models import Intent, Run, StepRun
from djinn.runs.selectors import RunView
from djinn.runs.states import RunStatus, StepStatus

MOST_EXPLAINED = 30
MOST_FILES = 200
MOST_INTENTS = 100
MOST_CALLS = 5
MOST_ASKED = 200
"""Open executions that are asked for failing calls; the newest."""


@dataclass(frozen=True)
class Held:
    """What does not go on, and why; `problem` is why that cannot be told."""

    items: Sequence[Explained]
    hidden: int = 0
    problem: str = ""
    is_folded: bool = False
    """Something runs, so that this is not what the reader looks for."""

    @property
    def count(self) -> int:
        return len(self.items) + self.hidden


@dataclass(frozen=True)
class Call:
    """A model call that failed and is made again, since when, and whose it is."""

    step_run: int
    step: str
    text: str
    at: datetime


@dataclass(frozen=True)
class Calls:
    """The failing calls of a run; `hidden` is how many more there are."""

    shown: Sequence[Call]
    hidden: int = 0


@dataclass(frozen=True)
class Parts:
    """The fragments' contents. The keys change when what depends on the reader has to be asked for anew."""

    groups: Sequence[StepGroup]
    results: Results
    held: Held
    files: Sequence[KeptFile]
    hidden_files: int
    offers_key: str
    questions_key: str
    failed: StepRun | None
    """The step run whose failure the run's message tells of, when it has a log here."""


@dataclass(frozen=True)
class Relations:
    """The runs around a run, and what people wanted of it."""

    parent: int | None
    continues: int | None
    continued_by: Sequence[int]
    intents: Sequence[Intent]


def parts_of(view: RunView) -> Parts:
    """The parts as the rows are now."""
    files = artifacts_of(view.row)
    return Parts(
        groups=groups_of(view),
        results=results_of(view),
        held=_held(view),
        files=files[:MOST_FILES],
        hidden_files=len(files[MOST_FILES:]),
        offers_key=" ".join(offers_of(view.row)),
        questions_key=key_of(view.row),
        failed=_failed(view),
    )


def failing_calls(run: int) -> Calls:
    """The model calls of the run that wait to be made again, in two queries."""
    rows = StepRun.objects.filter(run=run, status=StepStatus.RUNNING, execution__isnull=False)
    found = rows.order_by("-number").values_list("execution_id", "pk", "step", "item")[:MOST_ASKED]
    steps = {execution: (pk, named(step, item)) for execution, pk, step, item in found if execution is not None}
    calls = [
        Call(*steps[event.execution], shown(str(retry)), event.at)
        for event, retry in (retries_of(list(steps)) if steps else ())
        if event.execution is not None
    ]
    return Calls(calls[:MOST_CALLS], len(calls[MOST_CALLS:]))


def _failed(view: RunView) -> StepRun | None:
    failed = [step.row for step in view.steps if step.row.status == StepStatus.FAILED and not step.row.reused_from_id]
    return failed[-1] if failed and view.row.status == RunStatus.FAILED else None


def relations_of(run: Run) -> Relations:
    """What stands around the run."""
    return Relations(
        parent=run.parent.run_id if run.parent else None,
        continues=run.continues_id,
        continued_by=list(run.continuations.order_by("pk").values_list("pk", flat=True)[:MOST_INTENTS]),
        intents=list(run.intents.select_related("by")[:MOST_INTENTS]),
    )


def _held(view: RunView) -> Held:
    try:
        found = explain(view.row)
    except Conflict as exc:
        return Held([], problem=exc.message)
    is_running = any(step.row.status == StepStatus.RUNNING for step in view.steps)
    return Held(found[:MOST_EXPLAINED], len(found[MOST_EXPLAINED:]), is_folded=is_running)
