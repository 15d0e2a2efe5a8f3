"""Which queued run may begin: at most so many runs of a concurrency group are under way at once.

The free places are counted from the rows of open, admitted runs, under an advisory lock of the group, and never kept
as a number: nothing has to be given back. Who is next is the one with the highest effective priority: its priority,
and one more for each minute that it has waited. Two runs age alike, so their order never changes: a point of priority
is worth a minute of having come earlier.

Locks: `STARTS` of the groups, then rows of runs, then one group's `PLACES` to the end. A start takes `STARTS` of its
group before the rows that it cancels. So whoever holds rows of a group and may start a run in it takes `STARTS` before
them, with `lock_starts`. One exception: a step that uses a pipeline starts it under the lock of its own run, which is
of another group, or shares its place and takes no `STARTS`. Only two groups whose runs use each other's pipelines, and
cancel each other, can wait in a circle; PostgreSQL then ends one of the two, and the sweep rings for its run again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import takewhile
from typing import Literal

from django.db import connection
from django.db.models import Count, DateTimeField, DurationField, ExpressionWrapper, F, QuerySet, Value

from djinn.core.errors import Conflict, UserError
from djinn.pipelines.errors import TemplateInvalid
from djinn.pipelines.schema import JSON, OverlapPolicy, Pipeline
from djinn.pipelines.template import render
from djinn.runs.dispatch import ring_advance
from djinn.runs.models import Run
from djinn.runs.states import RUN_ADMITTED, RUN_OPEN, RunStatus

PLACES, STARTS = 0x646A0001, 0x646A0002
"""First halves of the keys of advisory locks; the second half is the group's hash."""
LONGEST_GROUP = 200
MOST_TOLD = 10
AT_ONCE = 100
CAME_AT = ExpressionWrapper(
    F("created_at") - ExpressionWrapper(F("priority") * Value(timedelta(minutes=1)), output_field=DurationField()),
    output_field=DateTimeField(),
)
"""When it would have come with priority 0 to be as urgent as it is."""
_IN_LINE = Run.objects.filter(status=RunStatus.QUEUED, paused_at=None, cancel_requested_at=None)
"""A paused run is passed over."""


@dataclass(frozen=True)
class Obstacle:
    """Why a queued run is not admitted. Without the runs of `runs`, the oldest first, it would be no obstacle."""

    kind: Literal["group", "order", "pause"]
    text: str
    runs: tuple[int, ...] = ()


def group_of(pipeline: Pipeline, inputs: Mapping[str, JSON]) -> tuple[str, int]:
    """The concurrency group of a run with these inputs and how many of it may be under way; ("", 1) for none.

    Raises `UserError` when the group's template cannot be filled in.
    """
    concurrency = pipeline.concurrency
    if concurrency is None:
        return "", 1
    try:
        rendered = render(concurrency.group, {**inputs, "inputs": dict(inputs)}, max_bytes=4 * LONGEST_GROUP)
    except TemplateInvalid as exc:
        raise _group_refused(f"cannot be filled in: {exc}") from exc
    if rendered.undefined:
        raise _group_refused(f"asks for {', '.join(rendered.undefined)}, which is no input")
    group = rendered.text.strip()
    if not group or len(group) > LONGEST_GROUP:
        raise _group_refused(f"must have 1 to {LONGEST_GROUP} characters, not {len(group)}")
    return group, concurrency.limit


def on_start(run: Run, policy: OverlapPolicy) -> list[Run]:
    """What the group's policy says about a run that has just been stored: the older ones that it cancels.

    Runs that shall be cancelled do not count: the new one waits for their places. Call it in the transaction that
    stores the run. Raises `Conflict` when the policy is `reject` and the group is full.
    """
    if not run.group or policy == "queue" or _is_within(run):
        return []
    lock_starts(run.group)
    others = Run.objects.filter(group=run.group, status__in=RUN_OPEN, cancel_requested_at=None).exclude(pk=run.pk)
    found = [other for other in others.order_by("pk") if not _is_within(other)]
    if policy == "cancel-running":
        return found[: max(0, len(found) + 1 - run.group_limit)]
    if len(found) >= run.group_limit:
        named = _named([other.pk for other in found])
        raise Conflict(f"The concurrency group {run.group!r} is full: {named} of {run.group_limit} allowed.")
    return []


def lock_starts(*groups: str) -> None:
    """Let nobody else start a run in these groups until the transaction ends; before rows of their runs are locked."""
    for group in sorted({group for group in groups if group}):
        _lock(STARTS, group)


def admit(run: Run) -> bool:
    """Whether the queued run may begin now. The caller has locked its row, and moves it on in the same transaction."""
    if run.paused_at is not None:
        return False
    if not run.group or _is_within(run):
        return True
    _lock(PLACES, run.group)
    has_place = len(holders(run.group)) < run.group_limit
    return has_place and list(_queue(run.group).values_list("pk", flat=True)[:1]) == [run.pk]


def ring_next(group: str) -> None:
    """After a run of the group has ended or left the queue: ring those for whom there is a place now."""
    taken = len(holders(group))
    for place, (pk, limit) in enumerate(_queue(group).values_list("pk", "group_limit")[:AT_ONCE], start=taken + 1):
        if place > limit:
            return
        ring_advance(pk)


def first_ones() -> list[int]:
    """For the sweep: the first queued run of each group that may have a free place, and all that need none."""
    queued = _IN_LINE.exclude(group="")
    taken = Run.objects.filter(status__in=RUN_ADMITTED, parent=None).exclude(group="").order_by()
    counts = dict(taken.values_list("group").annotate(count=Count("pk")))
    firsts = queued.order_by("group", CAME_AT, "pk").distinct("group").values_list("pk", "group", "group_limit")
    within = [run.pk for run in queued.filter(parent__isnull=False) if _is_within(run)]
    return within + [pk for pk, group, limit in firsts if counts.get(group, 0) < limit and pk not in within]


def holders(group: str) -> list[int]:
    """The runs that take the group's places, the oldest first. One that an admitted run of the same group has started
    shares its place: it could never begin otherwise."""
    rows = Run.objects.filter(group=group, status__in=RUN_ADMITTED).order_by("pk")
    return [run.pk for run in rows.only("pk", "group", "parent") if not _is_within(run)]


@dataclass(frozen=True)
class Line:
    """A concurrency group as it is: who holds its places, the oldest first, and who waits, the next one first."""

    held: Sequence[int]
    waiting: Sequence[int]

    @classmethod
    def of(cls, group: str) -> Line:
        """The group's rows now."""
        return cls(holders(group), list(_queue(group).values_list("pk", flat=True)))


def why_not(run: Run, line_of: Callable[[str], Line] = Line.of) -> list[Obstacle]:
    """Why a queued run is not admitted; empty when it is about to be, or has been."""
    if run.status != RunStatus.QUEUED:
        return []
    if run.paused_at is not None:
        return [Obstacle("pause", "it is paused: somebody has to resume it")]
    if not run.group:
        return []
    found, line = [], line_of(run.group)
    held = line.held
    if run.pk not in line.waiting and (run.cancel_requested_at is None or _is_within(run)):
        return []  # it shares the place of the run that has started it
    if len(held) >= run.group_limit:
        text = f"the concurrency group {run.group!r} is full: {_named(held)} of {run.group_limit} allowed"
        found.append(Obstacle("group", text, tuple(held)))
    before = list(takewhile(lambda pk: pk != run.pk, line.waiting))
    if before:
        text = (
            f"in the concurrency group {run.group!r} {_named(before)} {'comes' if len(before) == 1 else 'come'} first"
        )
        found.append(Obstacle("order", text, tuple(before)))
    return found


def _queue(group: str) -> QuerySet[Run]:
    """The runs that wait for a place of the group, the next one first. One that needs no place is not among them."""
    rows = _IN_LINE.filter(group=group)
    within = [run.pk for run in rows.filter(parent__isnull=False) if _is_within(run)]
    return rows.exclude(pk__in=within).order_by(CAME_AT, "pk")


def _is_within(run: Run) -> bool:
    """Whether an admitted run of the same group has started it, or started what started it."""
    above = run
    while above.parent_id is not None:
        above = Run.objects.only("pk", "group", "status", "parent").get(step_runs=above.parent_id)
        if above.group == run.group and above.status in RUN_ADMITTED:
            return True
    return False


def _lock(key: int, group: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s, hashtext(%s))", [key, group])


def _named(runs: Sequence[int]) -> str:
    told = ", ".join(map(str, runs[:MOST_TOLD]))
    more = f" and {len(runs) - MOST_TOLD} more" if len(runs) > MOST_TOLD else ""
    return f"run {told}" if len(runs) == 1 else f"runs {told}{more}"


def _group_refused(why: str) -> UserError:
    return UserError(f"The name of the concurrency group {why}.", details={"concurrency.group": why})
