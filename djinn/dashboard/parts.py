"""What a run's page is made of beside the log: the same for everybody who may see it, and sent again live."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from djinn.core.errors import Conflict
from djinn.dashboard.asking import key_of
from djinn.dashboard.selectors import Results, results_of
from djinn.dashboard.steps import StepGroup, groups_of
from djinn.dashboard.verbs import offers_of
from djinn.runs.artifacts import KeptFile, artifacts_of
from djinn.runs.explanation import Explained, explain
from djinn.runs.models import Intent, Run
from djinn.runs.selectors import RunView

MOST_EXPLAINED = 30
MOST_FILES = 200
MOST_INTENTS = 100


@dataclass(frozen=True)
class Held:
    """What does not go on, and why; `problem` is why that cannot be told."""

    items: Sequence[Explained]
    hidden: int = 0
    problem: str = ""


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
        held=_held(view.row),
        files=files[:MOST_FILES],
        hidden_files=len(files[MOST_FILES:]),
        offers_key=" ".join(offers_of(view.row)),
        questions_key=key_of(view.row),
    )


def relations_of(run: Run) -> Relations:
    """What stands around the run."""
    return Relations(
        parent=run.parent.run_id if run.parent else None,
        continues=run.continues_id,
        continued_by=list(run.continuations.order_by("pk").values_list("pk", flat=True)[:MOST_INTENTS]),
        intents=list(run.intents.select_related("by")[:MOST_INTENTS]),
    )


def _held(run: Run) -> Held:
    try:
        found = explain(run)
    except Conflict as exc:
        return Held([], problem=exc.message)
    return Held(found[:MOST_EXPLAINED], len(found[MOST_EXPLAINED:]))
