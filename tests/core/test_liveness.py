"""Which workers live, and what a load balancer is told about it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from django.db import connection
from django.test import Client
from pytest_django import Settings

from djinn.celery import app
from djinn.core import tasks
from djinn.core.dispatch import drop_queues, messages_in, ring_canaries
from djinn.core.liveness import become_worker, queue_of, worker_views, workers_alive
from djinn.core.models import WorkerBeat
from djinn.executions import places
from tests.make import claimed, expire, make_execution, mute_broker, queue_key

pytestmark = [pytest.mark.django_db, pytest.mark.xdist_group("canaries")]


@pytest.fixture(autouse=True)
def nobody() -> Iterator[None]:
    """This process is no worker, before and after."""
    become_worker("", [])
    yield
    become_worker("", [])


@pytest.fixture
def broker(settings: Settings) -> Iterator[Any]:
    """The tests' Redis, without canaries."""
    with redis.Redis.from_url(settings.REDIS_URL, socket_timeout=5) as client:
        names = [queue_key("agents").encode(), *client.keys(queue_key("canary@*"))]
        client.delete(*names)
        yield client
        client.delete(queue_key("agents").encode(), *(client.keys(queue_key("canary@*")) or [b"none"]))


def beat(worker: str, kind: str, *, host: str = "here", silent: float = 0.0) -> None:
    """A worker whose last canary ran so many seconds ago."""
    WorkerBeat.objects.create(worker=worker, kind=kind, host=host)
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE core_workerbeat SET ran_at = clock_timestamp() - make_interval(secs => %s) WHERE worker = %s",
            [silent, worker],
        )


# --- What a canary leaves ---------------------------------------------------------------------------------------------
def test_a_canary_tells_which_worker_ran_it(settings: Settings) -> None:
    become_worker("control@a", ["control", queue_of("control@a")])
    tasks.canary()
    view = worker_views()[0]
    assert (view.worker, view.kind, view.host, view.state) == ("control@a", "control", settings.HOST_NAME, "alive")


@pytest.mark.parametrize(("runner", "isolates"), [("docker", True), ("process", False)])
def test_a_canary_of_an_agents_worker_tells_whether_it_isolates(
    settings: Settings, tmp_path: Path, runner: str, isolates: bool
) -> None:
    settings.RUNNER = runner
    places._chosen.cache_clear()
    become_worker("agents@a", ["agents", queue_of("agents@a")])
    try:
        tasks.canary()
    finally:
        places._chosen.cache_clear()
    assert [view.isolates for view in worker_views()] == [isolates]


def test_a_control_worker_says_nothing_of_isolation(settings: Settings) -> None:
    settings.RUNNER = "process"
    become_worker("control@a", ["control", queue_of("control@a")])
    tasks.canary()
    assert [view.isolates for view in worker_views()] == [True]


def test_a_worker_of_both_kinds_proves_both() -> None:
    become_worker("all@a", ["control", "agents", "agents@a"])
    tasks.canary()
    assert (workers_alive("control"), workers_alive("agents")) == (True, True)


def test_a_second_canary_changes_the_row_of_the_first() -> None:
    beat("control@a", "control", silent=100)
    become_worker("control@a", ["control"])
    tasks.canary()
    assert [view.state for view in worker_views()] == ["alive"]


def test_a_canary_outside_of_a_worker_proves_nothing() -> None:
    tasks.canary()
    assert not WorkerBeat.objects.exists()


# --- Who is asked -----------------------------------------------------------------------------------------------------
def test_every_known_worker_is_asked_in_its_own_queue_and_the_unknown_in_the_shared_one(broker: Any) -> None:
    beat("agents@a", "agents")
    become_worker("control@a", ["control"])
    tasks.call_canaries()
    assert (broker.llen(queue_key("agents")) >= 1, broker.llen(queue_key("canary@agents@a"))) == (True, 1)
    assert workers_alive("control")


def test_a_queue_that_nobody_reads_holds_one_canary(broker: Any) -> None:
    assert [ring_canaries("canary@gone") for _ in range(3)] == [["canary@gone"], [], []]
    assert broker.llen(queue_key("canary@gone")) == 1


def test_a_worker_that_is_silent_for_long_is_forgotten_with_its_queue(broker: Any) -> None:
    beat("agents@gone", "agents", silent=601)
    beat("agents@late", "agents", silent=599)
    ring_canaries(queue_of("agents@gone"))
    become_worker("control@a", ["control"])
    tasks.call_canaries()
    assert [view.worker for view in worker_views()] == ["agents@late", "control@a"]
    assert broker.llen(queue_key("canary@agents@gone")) == 0


# --- Who lives --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("silent", "state"), [(0, "alive"), (55, "alive"), (65, "silent")])
def test_a_worker_is_silent_after_a_minute_without_a_canary(silent: float, state: str) -> None:
    beat("agents@a", "agents", silent=silent)
    assert [view.state for view in worker_views()] == [state]


def test_an_agents_worker_that_holds_leases_is_busy_rather_than_silent() -> None:
    beat("agents@a", "agents", host="here", silent=100)
    beat("agents@b", "agents", host="there", silent=100)
    claimed(make_execution(), host="here")
    assert [(view.host, view.state) for view in worker_views()] == [("here", "busy"), ("there", "silent")]
    assert (workers_alive("agents", "here"), workers_alive("agents", "there")) == (True, False)


def test_leases_that_ran_out_prove_nothing() -> None:
    beat("agents@a", "agents", silent=100)
    execution = make_execution()
    claimed(execution)
    expire(execution)
    assert not workers_alive("agents")


def test_the_control_worker_of_a_busy_host_is_silent_all_the_same() -> None:
    beat("control@a", "control", silent=100)
    claimed(make_execution())
    assert not workers_alive("control")


def test_a_worker_is_looked_for_on_its_host() -> None:
    beat("agents@a", "agents", host="here")
    assert (workers_alive("agents"), workers_alive("agents", "here"), workers_alive("agents", "there")) == (
        True,
        True,
        False,
    )


# --- What a load balancer is told -------------------------------------------------------------------------------------
def ready(client: Client) -> tuple[int, str]:
    answer = client.get("/readyz")
    return answer.status_code, answer.content.decode()


def test_djinn_is_ready_while_workers_of_both_kinds_live(client: Client) -> None:
    beat("control@a", "control")
    beat("agents@a", "agents")
    assert ready(client) == (200, "ready")


@pytest.mark.parametrize(("living", "missing"), [("control", "agents"), ("agents", "control")])
def test_djinn_is_not_ready_when_a_kind_of_worker_is_silent(client: Client, living: str, missing: str) -> None:
    beat("a", living)
    beat("b", missing, silent=61)
    assert ready(client) == (503, f"no {missing} worker has run a canary task in the last 60 s")


def test_djinn_is_not_ready_before_a_worker_was_heard_of(client: Client) -> None:
    assert ready(client)[0] == 503


def test_one_living_worker_of_a_kind_is_enough(client: Client) -> None:
    beat("control@a", "control")
    beat("agents@a", "agents", silent=300)
    beat("agents@b", "agents", host="there")
    assert ready(client)[0] == 200


def test_the_bound_is_a_setting(client: Client, settings: Settings) -> None:
    settings.SILENT_SECONDS = 2.0
    beat("control@a", "control", silent=3)
    beat("agents@a", "agents")
    assert ready(client) == (503, "no control worker has run a canary task in the last 2 s")


def test_the_figures_name_nobody(client: Client) -> None:
    beat("control@a", "control", silent=5)
    beat("agents@a", "agents", host="secret", silent=70)
    answer = client.get("/readyz", headers={"Accept": "application/json"})
    document = answer.json()
    assert (answer.status_code, document["ready"], len(document["problems"])) == (503, False, 1)
    assert document["workers"]["agents"]["silent"] == document["workers"]["control"]["alive"] == 1
    assert 5 <= document["workers"]["control"]["seconds_since_canary"] < 30
    assert "secret" not in answer.content.decode()


def test_a_broker_that_accepts_and_never_answers_costs_one_timeout_and_is_told_apart_from_empty_queues() -> None:
    with mute_broker() as accepted:
        assert messages_in("control", "agents") is None
        assert len(accepted) == 1
        assert ring_canaries(*(f"canary@{number}" for number in range(9))) == []
        assert len(accepted) == 2


def test_the_lengths_of_several_queues_are_told_by_name(broker: Any) -> None:
    broker.rpush(queue_key("canary@a"), "x", "y")
    assert messages_in("canary@a", "canary@b") == {"canary@a": 2, "canary@b": 0}


def test_a_broker_that_is_away_is_no_error(settings: Settings) -> None:
    present = app.conf.broker_write_url
    app.conf.broker_write_url = "redis+socket:///nonexistent/redis.sock"
    try:
        assert ring_canaries("canary@a") == []
        drop_queues("canary@a")
    finally:
        app.conf.broker_write_url = present
