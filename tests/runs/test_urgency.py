"""What a worker takes when many wait: the most urgent one, and nothing starves."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.db.models import F

from djinn.executions.lease import claim
from djinn.executions.models import Execution
from djinn.runs import engine
from djinn.runs.models import Run, StepRun
from djinn.runs.services import cancel_run, start_run
from djinn.runs.urgency import most_urgent
from tests.make import HOST, make_execution, step, write_pipeline

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("home")]


@pytest.fixture(autouse=True)
def _pipeline(home: object) -> None:
    write_pipeline(step("A"))


def waiting(priority: int = 0, *, host: str = "", minutes: float = 0.0, **columns: object) -> int:
    """A step run whose execution waits to be claimed, since so many minutes."""
    run = start_run(pipeline_id="work", inputs={}, priority=priority)
    execution = make_execution(stream=run.stream, host=host)
    made = StepRun.objects.create(
        run=run,
        number=1,
        step="A",
        visit=1,
        attempt=1,
        execution=execution,
        **columns,  # type: ignore[misc]
    )
    StepRun.objects.filter(pk=made.pk).update(queued_at=F("queued_at") - timedelta(minutes=minutes))
    return made.pk


def take(host: str = HOST) -> int | None:
    """Claim the most urgent one."""
    with transaction.atomic():
        number = most_urgent(host)
        if number is not None:
            assert claim(StepRun.objects.get(pk=number).execution_id or 0, owner="worker", host=host)
    return number


def test_nothing_is_taken_when_nothing_waits() -> None:
    assert most_urgent(HOST) is None


def test_a_high_priority_is_taken_before_sixty_that_came_earlier() -> None:
    for _ in range(60):
        waiting()
    high = waiting(1)
    assert take() == high


def test_one_that_has_waited_long_enough_is_taken_before_a_new_high_one() -> None:
    low, high = waiting(-100, minutes=201), waiting(100)
    assert [take(), take()] == [low, high]


def test_one_that_has_not_waited_long_enough_is_taken_after_it() -> None:
    low, high = waiting(-100, minutes=199), waiting(100)
    assert [take(), take()] == [high, low]


def test_equally_urgent_ones_are_taken_in_their_order() -> None:
    numbers = [waiting() for _ in range(3)]
    StepRun.objects.update(queued_at=StepRun.objects.get(pk=numbers[2]).queued_at)
    assert [take(), take(), take(), take()] == [*numbers, None]


def test_what_another_host_must_do_is_left_to_it() -> None:
    elsewhere, here, anywhere = waiting(9, host="there"), waiting(8, host=HOST), waiting(7)
    assert [take(), take(), take()] == [here, anywhere, None]
    assert take("there") == elsewhere


def test_what_shall_be_cancelled_is_not_begun() -> None:
    number = waiting()
    cancel_run(run=Run.objects.get(step_runs=number))
    assert take() is None


def test_what_belongs_to_a_paused_run_is_passed_over() -> None:
    high, low = waiting(9), waiting()
    Run.objects.filter(step_runs=high).update(paused_at=F("created_at"))
    assert [take(), take()] == [low, None]


@pytest.mark.parametrize("column", ["paused_at", "cancel_requested_at"])
def test_what_belongs_to_a_part_of_a_held_run_is_passed_over(column: str) -> None:
    outer = StepRun.objects.get(pk=waiting(status="running"))
    inner, other = waiting(9), waiting()
    Run.objects.filter(step_runs=inner).update(parent=outer)
    Run.objects.filter(pk=outer.run_id).update(**{column: F("created_at")})
    assert [take(), take()] == [other, None]


def test_a_run_whose_workspace_is_elsewhere_is_left_to_that_host() -> None:
    number = waiting()
    Run.objects.filter(step_runs=number).update(host="there")
    assert [take(), take("there")] == [None, number]


def test_what_somebody_has_held_before_is_left_to_the_sweep() -> None:
    number = waiting()
    execution = Execution.objects.get(step_run=number)
    assert claim(execution.pk, owner="worker", host=HOST)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE executions_execution SET lease_expires_at = clock_timestamp() - interval '1 hour'")
    assert take() is None


@pytest.mark.parametrize("status", ["cancelled", "failed"])
def test_a_step_run_that_has_ended_is_not_taken(status: str) -> None:
    waiting(status=status, ended_at="2026-01-01T00:00Z")
    assert take() is None


def test_a_ring_for_what_another_ring_took_serves_what_that_one_was_for() -> None:
    low, high = (prepared(priority) for priority in (0, 9))
    engine.execute_step(low)
    assert [is_done(low), is_done(high)] == [False, True]
    engine.execute_step(high)
    assert is_done(low)


def prepared(priority: int) -> int:
    """A step run of a new run, prepared by the engine."""
    run = start_run(pipeline_id="work", inputs={}, priority=priority)
    engine.advance_run(run.pk)
    number = StepRun.objects.get(run=run).pk
    engine.prepare_step(number)
    return number


def is_done(number: int) -> bool:
    return Execution.objects.get(step_run=number).is_final


def test_workers_that_ask_at_the_same_moment_each_take_another_one() -> None:
    numbers = [waiting() for _ in range(8)]
    barrier, taken = threading.Barrier(8), []

    def ask() -> None:
        try:
            barrier.wait(10)
            taken.append(take())
        finally:
            connection.close()

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(number or 0 for number in taken) == numbers
