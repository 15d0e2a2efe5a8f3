"""The step runs of a run as its page lists them: one line each, and many items of one step together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from djinn.runs.models import Run, StepRun
from djinn.runs.selectors import RunView, StepView
from djinn.runs.states import StepStatus

MOST_ITEMS_ALONE = 8
"""A step with more items than this has one line for all of them."""
MOST_TOLD = 10
"""How many of its items are listed all the same: those that are under way or went wrong."""
_TOLD = frozenset({StepStatus.RUNNING, StepStatus.WAITING, StepStatus.FAILED})
LINES_A_PAGE = 100


@dataclass(frozen=True)
class StepLine:
    """A step run, the run that is its work, and the one whose result it took over."""

    view: StepView
    child: int | None = None
    reused_from: int | None = None

    @property
    def row(self) -> StepRun:
        return self.view.row


@dataclass(frozen=True)
class Tally:
    """How many step runs have a status."""

    status: str
    count: int

    def get_status_display(self) -> str:
        return f"{self.count:,} {StepStatus(self.status).label.lower()}"


@dataclass(frozen=True)
class StepGroup:
    """Lines of the list. With `tallies` they are only some of the `count` tries of many items of one step."""

    step: str
    lines: Sequence[StepLine]
    count: int = 1
    tallies: Sequence[Tally] = ()


@dataclass(frozen=True)
class ItemPage:
    """Some of a step's tries; `before` and `after` are numbers of pages, 0 where there is none."""

    step: str
    lines: Sequence[StepLine]
    count: int
    before: int
    after: int


def groups_of(view: RunView) -> list[StepGroup]:
    """The run's step runs in their order; a step with many items stands where its first one does."""
    items: dict[str, list[StepView]] = {}
    for step in view.steps:
        if step.row.item:
            items.setdefault(step.row.step, []).append(step)
    many = {name: found for name, found in items.items() if len({one.row.item for one in found}) > MOST_ITEMS_ALONE}
    links = _Links(view.row)
    groups: dict[object, StepGroup] = {}
    for step in view.steps:
        row = step.row
        if row.item and row.step in many:
            if row.step not in groups:
                groups[row.step] = _group(row.step, many[row.step], links)
        else:
            groups[row.pk] = StepGroup(row.step, [links.line(step)])
    return list(groups.values())


def item_page(view: RunView, step: str, page: int) -> ItemPage:
    """The tries of a step, in their order."""
    found = [one for one in view.steps if one.row.step == step]
    start = (page - 1) * LINES_A_PAGE
    links = _Links(view.row)
    lines = [links.line(one) for one in found[start : start + LINES_A_PAGE]]
    return ItemPage(step, lines, len(found), page - 1, page + 1 if start + LINES_A_PAGE < len(found) else 0)


def _group(step: str, found: Sequence[StepView], links: _Links) -> StepGroup:
    told = [one for one in found if one.row.status in _TOLD]
    return StepGroup(step, [links.line(one) for one in told[-MOST_TOLD:]], len(found), _tallies(found))


def _tallies(found: Iterable[StepView]) -> list[Tally]:
    counts = Counter(one.row.status for one in found)
    return [Tally(status, counts[status]) for status in StepStatus.values if counts[status]]


class _Links:
    """Which runs the step runs of a run lead to."""

    def __init__(self, run: Run) -> None:
        reused = run.step_runs.filter(reused_from__isnull=False)
        self._origins = {
            pk: (origin, number)
            for pk, origin, number in reused.values_list("pk", "reused_from_id", "reused_from__run_id")
        }
        wanted = [origin for origin, _ in self._origins.values()]
        own = Run.objects.filter(parent__run=run) | Run.objects.filter(parent__in=wanted)
        self._children: Mapping[int | None, int] = dict(own.values_list("parent_id", "pk"))

    def line(self, view: StepView) -> StepLine:
        origin, reused_from = self._origins.get(view.row.pk, (view.row.pk, None))
        return StepLine(view, self._children.get(origin), reused_from)
