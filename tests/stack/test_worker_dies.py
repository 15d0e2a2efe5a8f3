"""A worker that dies in the middle of a step loses nothing: the container goes on and another worker adopts it."""

from __future__ import annotations

import json
import signal
import time
from typing import Any

import pytest

from tests.stack.live import Live, measured, wait_for

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("stack"), pytest.mark.timeout(300)]

DEMO_STEPS = ["TRIAGE", "FIX", "TEST", "REVIEW", "FIX", "TEST", "REVIEW"]


@pytest.fixture(scope="session")
def undisturbed(live: Live) -> int:
    """A run of the demo that nobody hurts."""
    run = live.start("demo")
    assert live.await_end(run)["status"] == "succeeded"
    return run


def results_of(live: Live, run: int) -> list[Any]:
    """Outputs, changes and the whole change: what a disturbed run must have in common with an undisturbed one."""
    steps = live.steps(run)
    return [
        [(s["step"], s["visit"], s["attempt"], s["status"], s["outputs"], s["diff"]) for s in steps],
        steps[-1]["run_diff"],
    ]


def assert_every_record_is_in_the_log_once(live: Live, run: int) -> None:
    """Each journal, byte for byte, against the log: the same records, each once, in order, at their offsets."""
    events = live.events(run)
    for step in live.steps(run):
        tags = {"step_run": step["id"], "item": "", **{name: step[name] for name in ("step", "visit", "attempt")}}
        expected, offset = [], 0
        for line in live.journal(step["execution_id"]).splitlines(keepends=True):
            record = json.loads(line)
            expected.append((offset, record["type"], {**record["data"], **tags}))
            offset += len(line)
        logged = [(e["offset"], e["type"], e["data"]) for e in events if e["execution"] == step["execution_id"]]
        assert logged == expected
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))


def in_the_middle_of_fix(live: Live) -> int:
    """A run of the demo whose first FIX is at work."""
    run = live.start("demo")
    live.await_event(run, "tool_call", step="FIX")
    assert live.steps(run)[-1]["status"] == "running"
    return run


@pytest.fixture(scope="session")
def killed(live: Live, undisturbed: int) -> int:
    """A run whose agents worker was killed with SIGKILL in the middle of FIX, and which has ended."""
    run = in_the_middle_of_fix(live)
    began = time.monotonic()
    live.kill("agents")
    live.await_event(run, "step_adopted", step="FIX")
    measured(f"adopted {time.monotonic() - began:.2f} s after the kill (lease: 5 s)")
    live.await_end(run)
    return run


def test_a_run_whose_worker_was_killed_succeeds_like_an_undisturbed_one(
    live: Live, killed: int, undisturbed: int
) -> None:
    assert live.run_row(killed)["status"] == "succeeded"
    assert results_of(live, killed) == results_of(live, undisturbed)


def test_every_journal_record_of_an_undisturbed_run_is_in_the_log_once(live: Live, undisturbed: int) -> None:
    assert_every_record_is_in_the_log_once(live, undisturbed)


def test_every_journal_record_of_a_run_whose_worker_was_killed_is_in_the_log_once(live: Live, killed: int) -> None:
    assert_every_record_is_in_the_log_once(live, killed)


def test_no_second_container_is_started_for_the_step_that_lost_its_worker(live: Live, killed: int) -> None:
    executions = [step["execution_id"] for step in live.steps(killed)]
    names = [name for name in live.containers() if int(name.rpartition("-")[2]) in executions]
    assert len(names) == len(set(executions)) == len(live.steps(killed))
    assert [e["type"] for e in live.events(killed, "ready")] == ["ready"] * len(executions)


def test_the_adoption_raises_the_token_of_that_execution_alone(live: Live, killed: int) -> None:
    tokens = [(step["step"], step["lease_token"]) for step in live.steps(killed) if step["lease_token"] != 1]
    assert tokens == [("FIX", 2)]


@pytest.mark.parametrize("victim", ["control", "web", "gateway", "redis"])
def test_a_run_survives_the_death_of(live: Live, undisturbed: int, victim: str) -> None:
    run = in_the_middle_of_fix(live)
    live.kill(victim)
    assert live.await_end(run)["status"] == "succeeded"
    assert results_of(live, run) == results_of(live, undisturbed)
    assert_every_record_is_in_the_log_once(live, run)


def test_a_run_survives_an_emptied_redis(live: Live, undisturbed: int) -> None:
    run = in_the_middle_of_fix(live)
    live.redis("FLUSHALL")
    assert live.await_end(run)["status"] == "succeeded"
    assert results_of(live, run) == results_of(live, undisturbed)


def test_a_redis_that_is_emptied_all_the_time_loses_nothing_but_time(live: Live) -> None:
    run = live.start("demo")
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        live.redis("FLUSHALL")
        time.sleep(0.02)
    assert live.await_end(run, seconds=150)["status"] == "succeeded"


def test_a_worker_that_is_stopped_gently_leaves_at_once_and_its_container_goes_on(live: Live, undisturbed: int) -> None:
    run = in_the_middle_of_fix(live)
    began = time.monotonic()
    pid = live.kill("agents", signal.SIGTERM)
    wait_for(lambda: pid not in live.processes(), seconds=20, why="the worker's end")
    measured(f"the worker left after {time.monotonic() - began:.2f} s")
    execution = live.steps(run)[-1]["execution_id"]
    assert live.await_end(run)["status"] == "succeeded"
    assert results_of(live, run) == results_of(live, undisturbed)
    assert len([e for e in live.events(run, "ready") if e["execution"] == execution]) == 1
