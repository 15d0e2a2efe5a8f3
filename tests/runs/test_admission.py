"""Concurrency groups: so many runs at once, the most urgent first, and what becomes of one more."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import redis
from django.db import connection, transaction
from django.db.models import F

from djinn.core.errors import Conflict, UserError
from djinn.pipelines.schema import Pipeline
from djinn.runs import engine
from djinn.runs.admission import admit, group_of, holders, lock_starts, ring_next, why_not
from djinn.runs.catalogue import find_pipeline
from djinn.runs.continuing import rerun_from
from djinn.runs.models import Intent, Run, StepRun
from djinn.runs.schedules import Wanted, create_schedule, start_now
from djinn.runs.services import cancel_run, start_run
from djinn.runs.states import RunStatus
from djinn.runs.sweep import sweep
from tests.make import begin, make_user, queue_key, step, told, write_pipeline

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("home")]

JSON = Any


# --- Arrange ----------------------------------------------------------------------------------------------------------
def grouped(policy: str = "queue", limit: int = 1, group: str = "deploy", **keys: JSON) -> None:
    """A pipeline `work` whose runs are of one group."""
    write_pipeline(step("A"), concurrency={"group": group, "limit": limit, "policy": policy}, **keys)


def start(**keys: JSON) -> Run:
    return start_run(pipeline_id="work", inputs=keys.pop("inputs", {}), **keys)


def waits_since(run: Run, minutes: float) -> Run:
    Run.objects.filter(pk=run.pk).update(created_at=F("created_at") - timedelta(minutes=minutes))
    return run


def let_in(run: Run) -> bool:
    """What the engine does with a queued run: whether it has begun."""
    with transaction.atomic():
        locked = Run.objects.select_for_update().get(pk=run.pk)
        if locked.status != RunStatus.QUEUED or not admit(locked):
            return False
        Run.objects.filter(pk=run.pk).update(status=RunStatus.RUNNING)
        return True


def let_in_first(*runs: Run) -> Run:
    """The only one of them that may begin."""
    (one,) = [run for run in runs if let_in(run)]
    return one


def end(run: Run) -> None:
    with connection.cursor() as cursor:
        cursor.execute("UPDATE runs_run SET status = 'succeeded', ended_at = now() WHERE id = %s", [run.pk])


def child_of(run: Run, group: str = "deploy") -> Run:
    """A run that is the work of one of the run's steps."""
    number = run.step_runs.count() + 1
    above = StepRun.objects.create(run=run, number=number, step="USE", visit=1, attempt=number, status="running")
    return Run.objects.create(
        pipeline="work", definition={}, digest="", parent=above, depth=run.depth + 1, group=group, group_limit=1
    )


def begun(action: Callable[..., object], *arguments: object) -> threading.Thread:
    """A thread that does it on a connection of its own."""

    def act() -> None:
        try:
            action(*arguments)
        finally:
            connection.close()

    thread = threading.Thread(target=act)
    thread.start()
    return thread


def wait_for_waiting(thread: threading.Thread) -> None:
    """Until somebody waits for an advisory lock; fails when the thread ends without that."""
    deadline = time.monotonic() + 30
    with connection.cursor() as cursor:
        while not cursor.execute("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted").fetchone():
            assert thread.is_alive(), "it did not wait"
            assert time.monotonic() < deadline
            time.sleep(0.01)


# --- The group --------------------------------------------------------------------------------------------------------
def pipeline_of(group: str, **inputs: JSON) -> Pipeline:
    grouped(group=group, inputs=inputs)
    return find_pipeline("work").pipeline


def test_a_group_is_named_after_the_inputs() -> None:
    pipeline = pipeline_of("deploy-{{ target }}-{{ inputs.target }}", target={"type": "string"})
    assert group_of(pipeline, {"target": "live"}) == ("deploy-live-live", 1)


def test_a_pipeline_without_concurrency_has_no_group() -> None:
    write_pipeline(step("A"))
    assert group_of(find_pipeline("work").pipeline, {}) == ("", 1)


@pytest.mark.parametrize("value", ["", "   ", "x" * 201])
def test_a_group_that_cannot_be_named_is_refused_and_starts_nothing(value: str) -> None:
    pipeline_of("{{ target }}", target={"type": "string", "default": ""})
    with pytest.raises(UserError, match="concurrency group"):
        start(inputs={"target": value})
    assert not Run.objects.exists()


def test_a_group_that_asks_for_something_unknown_is_refused() -> None:
    pipeline = pipeline_of("{{ target }}", target={"type": "string", "default": ""})
    with pytest.raises(UserError, match="asks for target"):
        group_of(pipeline, {})


def test_a_run_keeps_its_group_its_limit_and_its_priority() -> None:
    grouped(limit=3, priority=7)
    run = start()
    assert (run.group, run.group_limit, run.priority) == ("deploy", 3, 7)


# --- Priority ---------------------------------------------------------------------------------------------------------
def test_the_priority_of_a_start_goes_before_the_pipelines() -> None:
    grouped(priority=7)
    assert start(priority=-100).priority == -100


@pytest.mark.parametrize("priority", [-101, 101, 10**9])
def test_a_priority_out_of_bounds_is_refused_and_starts_nothing(priority: int) -> None:
    grouped()
    with pytest.raises(UserError) as caught:
        start(priority=priority)
    assert (list(caught.value.details), Run.objects.exists()) == (["priority"], False)


# --- Places -----------------------------------------------------------------------------------------------------------
def test_a_run_without_a_group_is_admitted_at_once() -> None:
    runs = [begin(step("A")) for _ in range(3)]
    assert [let_in(run) for run in runs] == [True] * 3


def test_only_so_many_runs_of_a_group_are_admitted() -> None:
    grouped(limit=2)
    runs = [start() for _ in range(4)]
    assert [let_in(run) for run in runs] == [True, True, False, False]


def test_groups_do_not_take_each_others_places() -> None:
    grouped(group="{{ name }}", inputs={"name": {"type": "string"}})
    runs = [start(inputs={"name": name}) for name in "xy"]
    assert [let_in(run) for run in runs] == [True, True]


@pytest.mark.parametrize("status", ["running", "waiting", "paused"])
def test_an_admitted_run_holds_its_place_until_it_ends(status: str) -> None:
    grouped()
    first, second = start(), start()
    let_in(first)
    Run.objects.filter(pk=first.pk).update(status=status)
    assert not let_in(second)
    end(first)
    assert let_in(second)


def test_runs_that_knock_at_the_same_moment_do_not_take_more_places_than_there_are() -> None:
    grouped(limit=2)
    runs = [start() for _ in range(8)]
    barrier, admitted = threading.Barrier(8), []

    def knock(run: Run) -> None:
        barrier.wait(10)
        for _ in range(20):
            if let_in(run):
                admitted.append(run.pk)
                break

    for thread in [begun(knock, run) for run in runs]:
        thread.join(60)
    assert sorted(admitted) == sorted(run.pk for run in runs[:2]) == holders("deploy")


def test_who_knocks_while_another_is_let_in_waits_for_it_and_counts_it() -> None:
    grouped()
    first, second = start(), start()
    answers: list[bool] = []
    with transaction.atomic():
        assert let_in(first)
        thread = begun(lambda: answers.append(let_in(second)))
        wait_for_waiting(thread)
    thread.join(30)
    assert answers == [False]


# --- Order ------------------------------------------------------------------------------------------------------------
def test_the_one_that_came_first_is_admitted_first() -> None:
    grouped()
    first, second, third = start(), start(), start()
    assert let_in_first(third, second, first) == first


def test_a_higher_priority_goes_first() -> None:
    grouped()
    low, high, middle = start(), start(priority=9), start(priority=5)
    assert let_in_first(low, middle, high) == high


def test_who_has_waited_long_enough_goes_before_a_higher_priority() -> None:
    grouped()
    low, high = waits_since(start(), 51), start(priority=50)
    assert let_in_first(high, low) == low


def test_who_has_not_waited_long_enough_does_not() -> None:
    grouped()
    low, high = waits_since(start(), 49), start(priority=50)
    assert let_in_first(low, high) == high


def test_of_two_equally_urgent_ones_the_older_row_goes_first() -> None:
    grouped()
    first, second = start(), start()
    Run.objects.update(created_at=first.created_at)
    assert let_in_first(second, first) == first


def test_a_paused_run_is_passed_over_and_keeps_its_turn() -> None:
    grouped()
    first, second = start(), start()
    Run.objects.filter(pk=first.pk).update(paused_at=F("created_at"))
    assert let_in_first(first, second) == second
    third = start()
    end(second)
    Run.objects.filter(pk=first.pk).update(paused_at=None)
    assert let_in_first(third, first) == first


def test_a_run_that_shall_be_cancelled_holds_nobody_up() -> None:
    grouped()
    first, second = start(), start()
    cancel_run(run=first)
    assert let_in(second)


# --- Runs within runs -------------------------------------------------------------------------------------------------
def test_a_child_whose_group_its_own_parent_holds_is_admitted() -> None:
    grouped()
    parent = start()
    let_in(parent)
    assert let_in(child_of(parent))


def test_a_grandchild_whose_group_is_held_two_levels_above_is_admitted() -> None:
    grouped()
    parent = start()
    let_in(parent)
    between = child_of(parent, group="")
    let_in(between)
    assert let_in(child_of(between))


def test_a_child_shares_its_ancestors_place() -> None:
    grouped(limit=2)
    parent, other, third = start(), start(), start()
    let_in(parent)
    let_in(child_of(parent))
    assert [let_in(other), let_in(third)] == [True, False]


def test_a_child_in_a_group_that_others_hold_waits() -> None:
    grouped()
    other = start()
    let_in(other)
    write_pipeline(step("A"), name="parent")
    parent = start_run(pipeline_id="parent", inputs={})
    let_in(parent)
    child = child_of(parent)
    assert not let_in(child)
    end(other)
    assert let_in(child)


def test_a_child_that_needs_no_place_holds_nobody_up() -> None:
    grouped(limit=2)
    parent, other = start(), start()
    let_in(parent)
    child = child_of(parent)
    waits_since(child, 100)
    assert let_in(other)


# --- One more ---------------------------------------------------------------------------------------------------------
def test_a_full_group_that_rejects_refuses_one_more_and_stores_nothing() -> None:
    grouped("reject", limit=2)
    start(), start()
    with pytest.raises(Conflict, match="full"):
        start()
    assert Run.objects.count() == 2


def test_a_group_that_rejects_takes_one_more_when_one_has_ended() -> None:
    grouped("reject")
    end(start())
    assert start().status == "queued"


def test_a_run_that_shall_be_cancelled_does_not_make_a_group_full_but_keeps_its_place() -> None:
    grouped("reject")
    first = start()
    let_in(first)
    cancel_run(run=first)
    second = start()
    assert not let_in(second)
    end(first)
    assert let_in(second)


def test_an_open_run_of_a_group_that_rejects_is_run_again_in_its_own_place() -> None:
    grouped("reject")
    first = start()
    engine.advance_run(first.pk)
    assert rerun_from(run=first, step="A").continues == first


def test_a_start_waits_for_one_that_is_being_stored_before_it_is_refused() -> None:
    grouped("reject")
    outcomes: list[str] = []

    def one_more() -> None:
        try:
            start()
            outcomes.append("started")
        except Conflict:
            outcomes.append("refused")

    with transaction.atomic():
        start()
        thread = begun(one_more)
        wait_for_waiting(thread)
    thread.join(30)
    assert (outcomes, Run.objects.count()) == (["refused"], 1)


def test_a_start_cancels_the_older_runs_of_its_group_and_waits_for_them() -> None:
    grouped("cancel-running")
    first = start()
    let_in(first)
    second = start()
    assert not let_in(second)
    assert told(first, "cancel_requested") == [
        ("cancel_requested", {"by": "Djinn", "because": f"superseded by run {second.pk} of the same concurrency group"})
    ]
    intent = Intent.objects.get()
    assert (intent.run, intent.verb, intent.by) == (first, "cancel", None)
    end(first)
    assert let_in(second)


def test_a_start_cancels_older_runs_that_were_not_admitted_yet_too() -> None:
    grouped("cancel-running")
    first, second, third = start(), start(), start()
    wanted = Run.objects.filter(cancel_requested_at__isnull=False).order_by("pk")
    assert list(wanted) == [first, second]
    assert let_in(third)


def test_a_start_cancels_no_more_than_it_needs_a_place_the_oldest_first() -> None:
    grouped("cancel-running", limit=3)
    runs = [start() for _ in range(5)]
    wanted = Run.objects.filter(cancel_requested_at__isnull=False).order_by("pk")
    assert list(wanted) == runs[:2]


def test_a_rerun_waits_for_a_start_in_its_group_before_it_holds_the_old_row() -> None:
    grouped("cancel-running")
    first = start()
    engine.advance_run(first.pk)
    assert_row_is_free_while_it_waits(first, lambda: rerun_from(run=first, step="A"))


def test_a_tick_that_cancels_waits_for_a_start_in_its_group_before_it_holds_the_old_row() -> None:
    grouped("cancel-running")
    wanted = Wanted(name="often", pipeline="work", cron="* * * * *", inputs={}, overlap="cancel")
    schedule, user = create_schedule(user=make_user(), wanted=wanted), make_user("paula")
    first = start_now(schedule=schedule, user=user)
    assert_row_is_free_while_it_waits(first, lambda: start_now(schedule=schedule, user=user))


def assert_row_is_free_while_it_waits(run: Run, action: Callable[[], object]) -> None:
    """A start may need the run's row while it lets the action wait; the two would wait for each other for ever."""
    with transaction.atomic():
        lock_starts("deploy")
        thread = begun(action)
        wait_for_waiting(thread)
        Run.objects.select_for_update(nowait=True).get(pk=run.pk)
    thread.join(30)
    run.refresh_from_db()
    assert run.cancel_requested_at is not None


# --- Ringing ----------------------------------------------------------------------------------------------------------
@pytest.fixture
def rung(settings: Any) -> Iterator[Callable[[], list[str]]]:
    """What was rung for since the test asked last: arguments of the messages in the control workers' queue."""
    with redis.Redis.from_url(settings.REDIS_URL, socket_timeout=5) as client:
        client.delete(queue_key("control"))

        def read() -> list[str]:
            messages = client.lrange(queue_key("control"), 0, -1)
            client.delete(queue_key("control"))
            return [json.loads(message)["headers"]["argsrepr"] for message in reversed(messages)]

        yield read
        client.delete(queue_key("control"))


@pytest.mark.xdist_group("control-queue")
def test_when_a_run_has_ended_those_are_rung_for_whom_there_is_a_place(rung: Callable[[], list[str]]) -> None:
    grouped(limit=2)
    first, _, high, middle = start(), start(), start(priority=9), start(priority=5)
    let_in(high)
    rung()
    ring_next("deploy")
    assert rung() == [f"({middle.pk},)"]
    end(high)
    ring_next("deploy")
    assert rung() == [f"({middle.pk},)", f"({first.pk},)"]


def test_the_sweep_rings_only_the_first_of_a_group_however_many_wait() -> None:
    grouped(limit=2)
    for _ in range(30):
        waits_since(start(), 1)
    assert sweep() == 1


def test_the_sweep_does_not_ring_for_a_full_group() -> None:
    grouped()
    for _ in range(3):
        waits_since(start(), 1)
    first = Run.objects.order_by("pk")[0]
    let_in(first)
    StepRun.objects.create(run=first, number=1, step="A", visit=1, attempt=1, status="running")
    assert sweep() == 0


def test_the_sweep_rings_for_a_child_that_needs_no_place() -> None:
    grouped()
    parent = start()
    let_in(parent)
    waits_since(child_of(parent), 1)
    assert sweep() == 1


# --- Why not ----------------------------------------------------------------------------------------------------------
def test_the_reasons_name_who_holds_the_places_and_who_comes_first() -> None:
    grouped()
    holder, first, last = start(), start(), start()
    let_in(holder)
    assert [(found.kind, found.runs) for found in why_not(last)] == [("group", (holder.pk,)), ("order", (first.pk,))]


def test_a_run_starts_when_just_its_reasons_are_gone() -> None:
    grouped()
    holder, *others = [start() for _ in range(4)]
    let_in(holder)
    last = others[-1]
    for obstacle in why_not(last):
        for pk in obstacle.runs:
            end(Run(pk=pk))
    assert why_not(last) == []
    assert let_in(last)


def test_a_paused_run_says_so() -> None:
    grouped()
    run = start()
    run.paused_at = run.created_at
    assert [found.kind for found in why_not(run)] == ["pause"]


def test_a_run_that_may_begin_has_no_reasons() -> None:
    grouped()
    run = start()
    assert why_not(run) == []
