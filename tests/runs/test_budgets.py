"""The minutes of a run's budget: what its containers and those of the pipelines that it uses may take together."""

from __future__ import annotations

from datetime import timedelta
from itertools import count

import pytest
from django.utils import timezone

from djinn.executions.models import Execution
from djinn.executions.states import FINAL
from djinn.runs import engine
from djinn.runs.budgets import OutOfTime, seconds_left, stop_overdue
from djinn.runs.models import Run, StepRun
from tests.make import begin, history, make_execution, prepared, step, succeeded

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("home")]

NUMBERS = count(100)


# --- Arrange ----------------------------------------------------------------------------------------------------------
def bounded(minutes: float) -> Run:
    return begin(step("A"), budget={"minutes": minutes})


def container(run: Run, *, status: str = "exited", waited: float = 0, ready: bool = True, ran: float = 0) -> Execution:
    """One that was created, waited so many minutes, was ready, and ran so many minutes up to now."""
    now, number = timezone.now(), next(NUMBERS)
    ready_at = now - timedelta(minutes=ran)
    execution = make_execution(
        status=status,
        created_at=ready_at - timedelta(minutes=waited),
        ready_at=ready_at if ready else None,
        ended_at=now if status in FINAL else None,
        lease_expires_at=now + timedelta(hours=1),
        timeout_seconds=3600,
    )
    StepRun.objects.create(run=run, number=number, step="X", visit=1, attempt=number, execution=execution)
    return execution


def child_of(run: Run, minutes: float | None = None) -> Run:
    number = next(NUMBERS)
    above = StepRun.objects.create(run=run, number=number, step="USE", visit=1, attempt=number, status="running")
    definition = {**run.definition, "budget": minutes and {"usd": None, "tokens": None, "minutes": minutes}}
    return Run.objects.create(pipeline="part", definition=definition, digest="", parent=above, depth=run.depth + 1)


def stops(*executions: Execution) -> list[str]:
    return [Execution.objects.values_list("stop_reason", flat=True).get(pk=one.pk) for one in executions]


# --- What is left -----------------------------------------------------------------------------------------------------
def test_without_a_bound_of_minutes_nothing_is_bounded() -> None:
    assert seconds_left(begin(step("A"), budget={"tokens": 5})) is None


def test_what_ended_counts_from_when_it_was_ready_and_not_while_it_waited() -> None:
    run = bounded(10)
    container(run, waited=300, ran=4)
    assert seconds_left(run) == 360


def test_one_that_never_was_ready_used_nothing() -> None:
    run = bounded(10)
    container(run, status="lost", ready=False, waited=50)
    assert seconds_left(run) == 600


def test_one_that_runs_counts_with_what_it_has_used_and_not_with_what_it_may_take() -> None:
    run = bounded(10)
    container(run, status="running", ran=4)
    left = seconds_left(run)
    assert left is not None
    assert 300 < left <= 360


def test_one_that_waits_for_a_worker_holds_nothing() -> None:
    run = bounded(10)
    container(run, status="starting", ready=False, waited=50)
    assert seconds_left(run) == 600


def test_the_containers_of_used_pipelines_count_at_every_depth() -> None:
    run = bounded(10)
    inner = child_of(child_of(run))
    container(inner, ran=4)
    assert (seconds_left(run), seconds_left(inner)) == (360, 360)


def test_the_least_of_what_is_left_on_the_way_up_counts() -> None:
    run = bounded(10)
    narrow, wide = child_of(run, 2), child_of(run, 50)
    container(wide, ran=3)
    assert [seconds_left(one) for one in (run, narrow, wide)] == [420, 120, 420]
    container(narrow, ran=1)
    assert [seconds_left(one) for one in (run, narrow, wide)] == [360, 60, 360]


def test_the_parent_is_named_when_its_minutes_are_used() -> None:
    run = bounded(10)
    container(run, ran=10)
    with pytest.raises(OutOfTime, match=f"run {run.pk}, which this is a part of, has used all"):
        seconds_left(child_of(run, 5))


# --- What comes of it -------------------------------------------------------------------------------------------------
def let_first_end(run: Run, *, ran: float) -> None:
    """Let the run's first container have run so many minutes, and go on."""
    first, now = prepared(run), timezone.now()
    times = {"ready_at": now - timedelta(minutes=ran), "ended_at": now}
    StepRun.objects.filter(pk=first.pk).update(status="running")
    Execution.objects.filter(step_run=first).update(status="exited", outcome=succeeded(), **times)
    engine.settle_step(first.pk)


def test_parallel_steps_may_each_take_all_that_is_left() -> None:
    steps = [step(name, needs=["A"], timeout=3600) for name in "BC"]
    run = begin(step("A"), *steps, budget={"minutes": 10})
    let_first_end(run, ran=4)
    assert list(Execution.objects.order_by("pk").values_list("step", "timeout_seconds"))[1:] == [("B", 360), ("C", 360)]


def test_a_step_fails_when_no_minute_is_left() -> None:
    run = begin(step("A", onComplete="B"), step("B"), budget={"minutes": 1})
    let_first_end(run, ran=1)
    run.refresh_from_db()
    assert history(run)[1:] == [("B", 1, 1, "failed", "budget")]
    assert (run.status, run.reason) == ("failed", "budget")


# --- Stopping ---------------------------------------------------------------------------------------------------------
def test_what_runs_is_stopped_when_all_minutes_are_used() -> None:
    run = bounded(10)
    first, second, waiting = (
        container(run, status="running", ran=6),
        container(child_of(run), status="running", ran=5),
        container(run, status="starting", ready=False),
    )
    assert (stop_overdue(), stops(first, second, waiting)) == (3, ["budget"] * 3)
    assert stop_overdue() == 0


def test_what_has_minutes_left_is_not_stopped() -> None:
    run, free = bounded(10), begin(step("A"))
    inside = child_of(run, 3)
    over, under, other = (
        container(inside, status="running", ran=4),
        container(run, status="running", ran=2),
        container(free, status="running", ran=500),
    )
    assert (stop_overdue(), stops(over, under, other)) == (1, ["budget", "", ""])
