"""What the pages read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

from django.shortcuts import get_object_or_404

from djinn.accounts.models import User
from djinn.dashboard.diffs import Diff, read_diff
from djinn.dashboard.folding import Fold, Section, sections_of
from djinn.dashboard.texts import shown
from djinn.events.log import LoggedEvent, last_seq, read_before
from djinn.providers.selectors import Bill, add_bills, bills_of
from djinn.runs.models import Run, StepRun
from djinn.runs.selectors import (
    LEFT,
    UNLISTED,
    RunView,
    StepView,
    duration_of,
    pipelines_seen_by,
    results_of_steps,
    run_view,
    runs_seen_by,
)
from djinn.runs.states import STEP_OPEN

RUNS_A_PAGE = 50
MOST_RESULTS = 50
MOST_EMPTY_SECTIONS = 200
"""In a run with more step runs, only those that are open have a section before the log's window."""
EVENTS_A_PAGE = 1000
LOOK_BACK = 200
"""Events before a window that tell how its first ones are shown: whether a message's deltas came before it."""


@dataclass(frozen=True)
class RunLine:
    """A run in the list."""

    row: Run
    bill: Bill

    @property
    def duration(self) -> timedelta | None:
        return duration_of(self.row.started_at, self.row.ended_at)


@dataclass(frozen=True)
class RunList:
    """A page of the list; `newer` and `older` are the query strings of its neighbours, empty when there are none."""

    lines: list[RunLine]
    newer: str
    older: str
    pipelines: list[str]


PEOPLE = ("created_by", "cancelled_by", "paused_by", "parent", "schedule")
HEAVY = ("definition", *(f"parent__{name}" for name in LEFT))
"""Columns that a run's page does not show."""


def find_run(user: User, pk: int) -> Run:
    """The run, if the person may see it; else raises Http404."""
    return get_object_or_404(runs_seen_by(user).select_related(*PEOPLE).defer(*HEAVY), pk=pk)


def run_list(
    user: User, *, wanted: dict[str, str], older_than: int | None = None, newer_than: int | None = None
) -> RunList:
    """The runs that the person may see, newest first, of the `wanted` status and pipeline."""
    seen = runs_seen_by(user)
    runs = seen.filter(**wanted).select_related("created_by", "cancelled_by").defer(*UNLISTED, "inputs")
    if newer_than is not None:
        found = list(runs.filter(pk__gt=newer_than).order_by("pk")[: RUNS_A_PAGE + 1])
        rows, has_newer, has_older = found[:RUNS_A_PAGE][::-1], len(found) > RUNS_A_PAGE, True
    else:
        page = runs if older_than is None else runs.filter(pk__lt=older_than)
        found = list(page.order_by("-pk")[: RUNS_A_PAGE + 1])
        rows, has_newer, has_older = found[:RUNS_A_PAGE], older_than is not None, len(found) > RUNS_A_PAGE
    return RunList(
        lines=_lines(rows),
        newer="?" + urlencode({**wanted, "newer": rows[0].pk}) if rows and has_newer else "",
        older="?" + urlencode({**wanted, "older": rows[-1].pk}) if rows and has_older else "",
        pipelines=pipelines_seen_by(user),
    )


def _lines(rows: list[Run]) -> list[RunLine]:
    executions: dict[int, list[int]] = {}
    pairs = StepRun.objects.filter(run__in=rows, execution__isnull=False).values_list("run_id", "execution_id")
    for run, execution in pairs:
        executions.setdefault(run, []).append(execution or 0)
    bills = bills_of(execution for found in executions.values() for execution in found)
    nothing = Bill()
    return [RunLine(row, add_bills(bills.get(key, nothing) for key in executions.get(row.pk, ()))) for row in rows]


@dataclass(frozen=True)
class NamedText:
    """An input or an output."""

    name: str
    text: str


@dataclass(frozen=True)
class StepResult:
    """What a step run left."""

    step: StepView
    summary: str
    outputs: list[NamedText]
    changes: list[dict[str, Any]]


@dataclass(frozen=True)
class Results:
    """What the run has brought so far."""

    steps: list[StepResult]
    diff: Diff
    hidden: int
    """How many step runs that left something are not shown."""


def results_of(view: RunView) -> Results:
    """The outputs and the changed files of the newest step runs that have any, and the run's diff."""
    rows, hidden = results_of_steps(view.row.pk, MOST_RESULTS)
    views = {step.row.pk: step for step in view.steps}
    steps = [
        StepResult(views[row.pk], shown(row.summary), named_texts(row.outputs), _changes(row))
        for row in rows
        if row.pk in views
    ]
    return Results(steps, read_diff(view.diff), hidden)


def named_texts(values: dict[str, Any]) -> list[NamedText]:
    """The values as they are shown."""
    return [NamedText(shown(name), shown(value)) for name, value in values.items()]


def _changes(row: StepRun) -> list[dict[str, Any]]:
    return list(row.execution.changes) if row.execution else []


@dataclass(frozen=True)
class LogPage:
    """A window of the log. `seq` is its last event; `earlier` and `later` are cursors, 0 where there is nothing."""

    sections: list[Section]
    seq: int
    earlier: int
    later: int
    is_newest: bool


@dataclass(frozen=True)
class RunPage:
    """The page of a run."""

    view: RunView
    log: LogPage
    steps: dict[int, StepView]


def run_page(run: Run, *, before: int | None = None) -> RunPage:
    """The run and its newest events, or those before the sequence number `before`.

    The step runs are listed first, the events are read next, the rows last: so every step run whose `step_queued` lies
    before the window is known, and every status is at least as new as the log.
    """
    known = _known(run)
    newest = last_seq(run.stream)
    end = newest if before is None else min(before - 1, newest)
    events = read_before(run.stream, end, limit=EVENTS_A_PAGE + LOOK_BACK)
    earlier, window = events[:-EVENTS_A_PAGE], events[-EVENTS_A_PAGE:]
    fold = Fold()
    fold.take_all(earlier)
    changes = fold.take_all(window)
    opened = {change.place for change in changes if change.opens}
    shown_here = {change.place for change in changes}
    prior = [pk for pk in known if pk not in opened and (before is None or pk in shown_here)]
    run.refresh_from_db()
    view = run_view(run, is_whole=False)
    log = LogPage(sections_of(changes, before=prior), end, *_cursors(window, newest, end), is_newest=before is None)
    return RunPage(view, log, {step.row.pk: step for step in view.steps})


def _known(run: Run) -> list[int]:
    """The step runs that more may come of, and the ended ones if they are few; of reused ones nothing is told here."""
    rows = list(run.step_runs.filter(reused_from=None).order_by("number").values_list("pk", "status"))
    return [pk for pk, status in rows if len(rows) <= MOST_EMPTY_SECTIONS or status in STEP_OPEN]


def fold_at(stream: str, seq: int) -> Fold:
    """The fold behind the event `seq`."""
    fold = Fold()
    fold.take_all(read_before(stream, seq, limit=LOOK_BACK))
    return fold


def _cursors(window: Sequence[LoggedEvent], newest: int, end: int) -> tuple[int, int]:
    first = window[0].seq if window else 1
    later = min(end + EVENTS_A_PAGE, newest) + 1 if end < newest else 0
    return (first if first > 1 else 0), later
