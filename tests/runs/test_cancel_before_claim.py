"""What a cancel reaches before a worker does never begins, whoever is alive to apply it."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from django.db import connection, transaction

from djinn.executions.launch import launch
from djinn.executions.models import Execution
from djinn.executions.places import present_runner
from djinn.runs import engine
from djinn.runs.models import Run, StepRun
from djinn.runs.services import cancel_run
from djinn.runs.steering import pause_run, resume_run
from tests.make import begin, claimed, expire, history, played, prepared, step, told, work, write_pipeline
from tests.stack.live import wait_for

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("home"),
    pytest.mark.timeout(60),
]
WAITS_FOR_A_LOCK = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


def using() -> tuple[Run, Run]:
    """A run whose step uses another pipeline, and that one's run."""
    write_pipeline(step("WITHIN"), name="inner")
    outer = begin({"id": "USE", "uses": "inner"})
    engine.advance_run(outer.pk)
    return outer, Run.objects.get(parent__run=outer)


def execution_of(step_run: StepRun) -> Execution:
    return Execution.objects.get(step_run=step_run)


def in_a_thread(action: Callable[[], object]) -> threading.Thread:
    def act() -> None:
        try:
            action()
        finally:
            connection.close()

    thread = threading.Thread(target=act)
    thread.start()
    return thread


def somebody_waits() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_stat_clear_snapshot()")
        cursor.execute(WAITS_FOR_A_LOCK)
        return cursor.fetchone() is not None


def test_a_prepared_step_of_a_cancelled_run_is_not_claimed_while_no_control_worker_lives() -> None:
    run = begin(step("A"))
    step_run = prepared(run)
    cancel_run(run=run)
    engine.execute_step(step_run.pk)
    assert (execution_of(step_run).status, execution_of(step_run).lease_token) == ("starting", 0)
    assert work(run).status == "cancelled"
    assert history(run) == [("A", 1, 1, "cancelled", "cancelled")]
    assert told(run, "step_started") == []


def test_a_cancel_of_the_run_above_keeps_a_prepared_step_from_being_claimed() -> None:
    outer, inner = using()
    step_run = prepared(inner)
    cancel_run(run=outer)
    engine.execute_step(step_run.pk)
    assert execution_of(step_run).lease_token == 0
    engine.advance_run(outer.pk)
    assert (work(inner).status, work(outer).status) == ("cancelled", "cancelled")
    assert told(inner, "step_started") == []


def test_a_run_hears_by_itself_of_the_cancel_of_the_run_above() -> None:
    outer, inner = using()
    prepared(inner)
    cancel_run(run=outer)
    assert work(inner).status == "cancelled"
    assert [data["by"] for _, data in told(inner, "cancel_requested")] == [f"run {outer.pk}"]
    assert inner.intents.count() == 1
    assert work(outer).status == "cancelled"


def test_nothing_is_prepared_in_a_run_below_a_cancelled_one() -> None:
    outer, inner = using()
    step_run = prepared(inner)
    cancel_run(run=outer)
    StepRun.objects.filter(pk=step_run.pk).update(execution=None)
    engine.prepare_step(step_run.pk)
    assert StepRun.objects.get(pk=step_run.pk).execution is None


def test_a_pause_of_the_run_above_holds_a_prepared_step_back_until_it_goes_on() -> None:
    outer, inner = using()
    step_run = prepared(inner)
    pause_run(run=outer)
    engine.execute_step(step_run.pk)
    assert execution_of(step_run).lease_token == 0
    resume_run(run=outer)
    engine.execute_step(step_run.pk)
    assert execution_of(step_run).lease_token == 1


def test_a_cancel_that_commits_between_the_choice_and_the_claim_is_heard() -> None:
    """The cancel's transaction is open while a worker looks; the worker waits for it to know."""
    run = begin(step("A"))
    step_run = prepared(run)
    with transaction.atomic():
        cancel_run(run=run)
        worker = in_a_thread(lambda: engine.execute_step(step_run.pk))
        wait_for(lambda: somebody_waits() or not worker.is_alive(), why="the worker")
    worker.join(20)
    assert execution_of(step_run).lease_token == 0
    assert told(run, "step_started") == []


def test_a_claim_that_commits_first_is_stopped_by_the_cancel() -> None:
    run = begin(step("A", played(hold=True)))
    step_run = prepared(run)
    worker = in_a_thread(lambda: engine.execute_step(step_run.pk))
    wait_for(lambda: told(run, "step_started"))
    cancel_run(run=run)
    engine.advance_run(run.pk)
    worker.join(20)
    assert work(run).status == "cancelled"
    assert [kind for kind, _ in told(run, "step_started", "cancel_requested")] == ["step_started", "cancel_requested"]


def begun(script: str) -> tuple[Run, StepRun]:
    """A run whose container runs, and whose worker has died."""
    run = begin(step("A", script))
    step_run = prepared(run)
    assert step_run.execution is not None
    lease = claimed(step_run.execution, host="")
    lease.write(image_id="none", runner="stub")
    launch(step_run.execution, lease, present_runner())
    StepRun.objects.filter(pk=step_run.pk).update(status="running")
    expire(step_run.execution)
    return run, step_run


def test_an_adopted_container_of_a_cancelled_run_is_stopped_and_not_gone_on_with() -> None:
    run, step_run = begun(played(hold=True))
    cancel_run(run=run)
    engine.execute_step(step_run.pk)
    ended = execution_of(step_run)
    assert (ended.status, ended.reason) == ("killed", "cancelled")
    assert work(run).status == "cancelled"
    assert history(run) == [("A", 1, 1, "cancelled", "cancelled")]


def test_work_that_ended_before_the_cancel_was_heard_makes_no_step_succeed() -> None:
    run, step_run = begun(played())
    cancel_run(run=run)
    engine.execute_step(step_run.pk)
    assert (execution_of(step_run).status, execution_of(step_run).reason) == ("exited", "")
    engine.settle_step(step_run.pk)
    assert work(run).status == "cancelled"
    assert history(run) == [("A", 1, 1, "cancelled", "cancelled")]


def test_a_used_pipeline_that_succeeds_after_the_cancel_makes_no_step_succeed() -> None:
    outer, inner = using()
    with transaction.atomic():
        cancel_run(run=outer)
        Run.objects.filter(pk=inner.pk).update(status="succeeded", ended_at="2099-01-01T00:00Z")
        inner.step_runs.update(status="succeeded", ended_at="2099-01-01T00:00Z")
    engine.settle_step(outer.step_runs.get().pk)
    assert work(outer).status == "cancelled"
    assert history(outer) == [("USE", 1, 1, "cancelled", "cancelled")]
