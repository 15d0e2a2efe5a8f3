"""Messages that come twice, late, out of order or never: the rows decide."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from django.db import connection, transaction

from djinn.celery import app
from djinn.executions.lease import DatabaseClock
from djinn.executions.models import Execution
from djinn.providers.models import ModelCall
from djinn.runs import engine, tasks
from djinn.runs.dispatch import CROWD, QUIET
from djinn.runs.models import Approval, Run
from djinn.runs.states import RUN_FINAL
from djinn.runs.sweep import FEW, LOCK, sweep
from tests.make import (
    begin,
    claimed,
    empty_queues,
    failed,
    history,
    mute_broker,
    open_steps,
    played,
    queue_key,
    state_of,
    step,
    succeeded,
    told,
    work,
)

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("home", "quiet"),
    pytest.mark.xdist_group("messages"),
]

STEP_TASKS = (tasks.prepare_step, tasks.execute_step, tasks.settle_step)
UNKNOWN = 10**9


@pytest.fixture
def quiet() -> None:
    empty_queues()


def branching() -> Run:
    """A run that goes back once and ends with a failure: A, B, C, B, C, D."""
    return begin(
        step("A", onComplete="B"),
        step("B", played(finished=succeeded(NOTES="{{ NOTES }}x")), outputs=["NOTES"], onComplete="C"),
        step(
            "C",
            played(finished=succeeded(WORD="{% if NOTES == 'xx' %}END{% else %}ON{% endif %}")),
            outputs=["WORD"],
            onResult={"ON": {"goto": "B"}, "END": {"goto": "D"}},
        ),
        step("D", played(finished=failed())),
    )


EXPECTED = [
    ("A", 1, 1, "succeeded", ""),
    ("B", 1, 1, "succeeded", ""),
    ("C", 1, 1, "succeeded", ""),
    ("B", 2, 1, "succeeded", ""),
    ("C", 2, 1, "succeeded", ""),
    ("D", 1, 1, "failed", "error"),
]


@pytest.mark.parametrize("seed", range(6))
def test_any_order_of_any_messages_leads_to_the_same_history(seed: int) -> None:
    chance = random.Random(seed)
    run = branching()
    for _ in range(600):
        if Run.objects.filter(pk=run.pk, status__in=RUN_FINAL).exists():
            break
        numbers = [*run.step_runs.values_list("pk", flat=True), UNKNOWN]
        chance.choice(STEP_TASKS)(chance.choice(numbers[-3:]))
        if chance.random() < 0.3:
            tasks.advance_run(chance.choice([run.pk, UNKNOWN]))
    assert history(run) == EXPECTED
    assert [data["step"] for _, data in told(run, "step_started")] == ["A", "B", "C", "B", "C", "D"]
    assert Execution.objects.filter(stream=run.stream).count() == len(EXPECTED)


def test_a_run_that_has_ended_is_moved_by_no_message() -> None:
    run = work(begin(step("A"), step("B")))
    before, log = state_of(run), told(run)
    for number in run.step_runs.values_list("pk", flat=True):
        for task in (*STEP_TASKS, tasks.fail_step):
            task(number)
    tasks.advance_run(run.pk)
    assert (state_of(run), told(run)) == (before, log)


def test_nothing_starts_in_a_run_that_has_ended_whatever_its_history_says() -> None:
    run = begin(step("A"))
    Run.objects.filter(pk=run.pk).update(status="failed", ended_at=DatabaseClock())
    tasks.advance_run(run.pk)
    assert history(run) == []


def test_messages_for_rows_that_do_not_exist_are_ignored() -> None:
    for task in (*STEP_TASKS, tasks.fail_step, tasks.advance_run):
        task(UNKNOWN)
    assert (Run.objects.count(), Execution.objects.count()) == (0, 0)


def together(count: int, action: Callable[[], Any]) -> list[Exception]:
    """Do it in many threads at the same moment; what was raised."""
    barrier, raised = threading.Barrier(count), []

    def one() -> None:
        barrier.wait(10)
        try:
            action()
        except Exception as exc:  # the test looks at it
            raised.append(exc)
        finally:
            connection.close()

    threads = [threading.Thread(target=one) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return raised


def test_workers_that_all_hear_every_message_at_once_do_each_step_once() -> None:
    run = begin(step("A"), step("B"), step("C"))

    def hear() -> None:
        for _ in range(12):
            tasks.advance_run(run.pk)
            for number in open_steps(run):
                for task in STEP_TASKS:
                    task(number)

    assert together(4, hear) == []
    assert history(work(run)) == [(name, 1, 1, "succeeded", "") for name in "ABC"]
    assert [kind for kind, _ in told(run, "ready", "step_started")] == ["step_started", "ready"] * 3


# --- Never: the sweep -------------------------------------------------------------------------------------------------
def age(seconds: float) -> None:
    """Let every row be older than it is."""
    with connection.cursor() as cursor:
        cursor.execute("UPDATE runs_run SET created_at = created_at - make_interval(secs => %s)", [seconds])
        cursor.execute("UPDATE runs_steprun SET queued_at = queued_at - make_interval(secs => %s)", [seconds])
        cursor.execute("UPDATE executions_execution SET created_at = created_at - make_interval(secs => %s)", [seconds])


def test_the_sweep_leaves_rows_that_are_young_alone() -> None:
    run = begin(step("A"))
    assert sweep() == 0
    engine.advance_run(run.pk)
    assert sweep() == 0
    engine.prepare_step(open_steps(run)[0])
    assert sweep() == 0


def test_the_sweep_rings_for_a_run_that_nobody_has_looked_at() -> None:
    begin(step("A"))
    age(4)
    assert sweep() == 1


def test_the_sweep_rings_for_a_step_without_an_execution() -> None:
    run = begin(step("A"))
    engine.advance_run(run.pk)
    age(4)
    assert sweep() == 1


def test_the_sweep_rings_for_an_execution_that_nobody_has_claimed() -> None:
    run = begin(step("A"))
    engine.advance_run(run.pk)
    engine.prepare_step(open_steps(run)[0])
    age(4)
    assert sweep() == 1


def test_the_sweep_rings_for_an_expired_lease_at_once() -> None:
    run = begin(step("A"))
    engine.advance_run(run.pk)
    engine.prepare_step(open_steps(run)[0])
    Execution.objects.update(lease_token=1)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE executions_execution SET lease_expires_at = clock_timestamp() - interval '10 ms'")
    assert sweep() == 1


def test_the_sweep_leaves_a_running_lease_alone() -> None:
    run = begin(step("A"))
    engine.advance_run(run.pk)
    engine.prepare_step(open_steps(run)[0])
    with connection.cursor() as cursor:
        cursor.execute("UPDATE executions_execution SET lease_token = 1, lease_expires_at = clock_timestamp() + '5 s'")
    age(60)
    assert sweep() == 0


def test_the_sweep_rings_for_a_step_whose_execution_has_ended() -> None:
    run = begin(step("A"))
    engine.advance_run(run.pk)
    (number,) = open_steps(run)
    engine.prepare_step(number)
    engine.execute_step(number)
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE executions_execution DISABLE TRIGGER executions_guard")
        cursor.execute("UPDATE executions_execution SET ended_at = ended_at - interval '4 s'")
        cursor.execute("ALTER TABLE executions_execution ENABLE TRIGGER executions_guard")
    assert sweep() == 1


def test_the_sweep_rings_for_a_retry_when_its_time_has_come_and_not_before() -> None:
    run = begin(step("A", played(finished=failed()), retries={"max": 1, "backoff": "60s"}))
    engine.advance_run(run.pk)
    (number,) = open_steps(run)
    for task in STEP_TASKS:
        task(number)
    age(30)
    assert sweep() == 0
    with connection.cursor() as cursor:
        cursor.execute("UPDATE runs_steprun SET not_before = not_before - interval '61 s'")
    assert sweep() == 1


def test_a_sweep_leaves_the_work_to_one_that_is_at_it() -> None:
    begin(step("A"))
    age(4)
    rung: list[int] = []
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [LOCK])
        assert together(2, lambda: rung.append(sweep())) == []
    assert rung == [0, 0]
    assert sweep() == 1


@pytest.fixture
def queues(settings: Any) -> Iterator[redis.Redis]:
    """The broker, with nothing in the queues of the tests."""
    names = (queue_key("agents@full"), queue_key("control"))
    with redis.Redis.from_url(settings.REDIS_URL) as client:
        client.delete(*names)
        yield client
        client.delete(*names)


def prepared() -> Execution:
    """An execution of the host `full` that waits for a worker, long enough to be rung for."""
    run = begin(step("A"))
    engine.advance_run(run.pk)
    engine.prepare_step(open_steps(run)[0])
    Execution.objects.update(host="full")
    age(4)
    return Execution.objects.get()


def test_the_sweep_does_not_fill_the_broker_for_steps_that_wait_for_a_free_place(queues: redis.Redis) -> None:
    prepared()
    while queues.llen(queue_key("agents@full")) < QUIET:
        assert sweep() == 1
        queues.rpush(queue_key("agents@full"), *["x"] * 24)
    assert sweep() == 0
    queues.delete(queue_key("agents@full"))
    assert sweep() == 1


def test_the_sweep_rings_for_a_silent_worker_until_the_queue_is_crowded(queues: redis.Redis) -> None:
    execution = prepared()
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE executions_execution SET lease_token = 1, lease_expires_at = clock_timestamp() WHERE id = %s",
            [execution.pk],
        )
    queues.rpush(queue_key("agents@full"), *["x"] * (CROWD - 1))
    assert sweep() == 1
    assert sweep() == 0


def test_the_sweep_rings_for_a_few_only_while_the_control_workers_are_behind(queues: redis.Redis) -> None:
    for _ in range(FEW + 5):
        begin(step("A"))
    age(4)
    queues.delete(queue_key("control"))
    assert sweep() == FEW + 5
    queues.rpush(queue_key("control"), *["x"] * QUIET)
    assert sweep() == FEW


@pytest.fixture
def silent_broker() -> Iterator[None]:
    """A broker that nobody reaches."""
    present = app.conf.broker_write_url
    app.conf.broker_write_url = "redis+socket:///nonexistent/redis.sock"
    yield
    app.conf.broker_write_url = present


def test_the_sweep_ends_while_the_broker_is_away(silent_broker: None) -> None:
    run = begin(step("A"))
    engine.advance_run(run.pk)
    engine.prepare_step(open_steps(run)[0])
    age(4)
    assert sweep() == 0


def test_a_broker_that_accepts_and_never_answers_keeps_the_sweep_from_no_repair() -> None:
    """An approval's time has passed, minutes are used up, a model call is forsaken, and 30 runs are late."""
    for _ in range(30):
        begin(step("A"))
    asks = begin({"id": "ASK", "approve": {"by": "admin", "expires": "1h"}})
    engine.advance_run(asks.pk)
    Approval.objects.update(expires_at=DatabaseClock())
    slow = begin(step("A"), budget={"minutes": 1})
    engine.advance_run(slow.pk)
    execution = Execution.objects.get(step_run__run=slow)
    claimed(execution).write(status="running", ready_at="2026-01-01T00:00Z")
    ended = work(begin(step("A"))).step_runs.get().execution_id
    forsaken = ModelCall.objects.create(execution=ended, provider="p", model="m")
    age(4)
    with mute_broker() as accepted:
        assert sweep() == 0
    assert len(accepted) == 1
    assert Approval.objects.get().status == "expired"
    execution.refresh_from_db()
    assert execution.stop_reason == "budget"
    forsaken.refresh_from_db()
    assert forsaken.status != "open"
    assert sweep() > 30


def test_a_repair_that_fails_keeps_the_sweep_from_no_other_and_from_no_ring() -> None:
    asks = begin({"id": "ASK", "approve": {"by": "admin", "expires": "1h"}})
    engine.advance_run(asks.pk)
    Approval.objects.update(expires_at=DatabaseClock())
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE runs_approval RENAME COLUMN expires_at TO put_by")
    begin(step("A"))
    age(4)
    try:
        assert sweep() == 1
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE runs_approval RENAME COLUMN put_by TO expires_at")
    sweep()
    assert Approval.objects.get().status == "expired"


# --- What fails in the engine itself ----------------------------------------------------------------------------------
def test_the_third_crash_of_the_engine_fails_the_step_and_tells_so() -> None:
    run = begin(step("A"))
    engine.advance_run(run.pk)
    (number,) = open_steps(run)
    engine.prepare_step(number)
    for _ in range(2):
        tasks.fail_step(number)
        assert run.step_runs.get().status == "queued"
    tasks.fail_step(number)
    run.refresh_from_db()
    assert (run.status, run.reason) == ("failed", "error")
    assert "the engine failed 3 times" in run.message


def test_a_step_that_the_engine_gave_up_has_its_container_stopped() -> None:
    run = begin(step("A"))
    engine.advance_run(run.pk)
    (number,) = open_steps(run)
    engine.prepare_step(number)
    for _ in range(3):
        tasks.fail_step(number)
    assert run.step_runs.get().execution.stop_reason == "error"


@pytest.fixture
def deadlocks() -> Iterator[None]:
    """A database that ends every change of a step run as if it had chosen it in a deadlock."""
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE FUNCTION test_deadlock() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE EXCEPTION 'deadlock' USING ERRCODE = 'deadlock_detected'; END $$;"
            "CREATE TRIGGER test_deadlock BEFORE UPDATE ON runs_steprun FOR EACH ROW EXECUTE FUNCTION test_deadlock()"
        )
    yield
    with connection.cursor() as cursor:
        cursor.execute("DROP TRIGGER IF EXISTS test_deadlock ON runs_steprun; DROP FUNCTION test_deadlock")


def test_a_deadlock_is_no_crash_of_the_step(deadlocks: None) -> None:
    run = begin(step("A"))
    tasks.advance_run(run.pk)
    (number,) = open_steps(run)
    for _ in range(4):
        tasks.prepare_step(number)
    with connection.cursor() as cursor:
        cursor.execute("DROP TRIGGER test_deadlock ON runs_steprun")
    assert work(run).status == "succeeded"
    assert run.step_runs.get().crashes == 0


def test_a_run_whose_definition_cannot_be_read_fails_and_tells_so() -> None:
    run = begin(step("A"))
    Run.objects.filter(pk=run.pk).update(definition={"steps": "gone"})
    tasks.advance_run(run.pk)
    run.refresh_from_db()
    assert (run.status, run.reason) == ("failed", "error")
    assert "cannot be decided" in run.message
