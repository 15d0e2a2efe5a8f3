"""A cancel stops the container, whoever is alive to hear of it."""

from __future__ import annotations

import signal
import time

import pytest

from tests.stack.live import Live, measured, wait_for

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("stack"), pytest.mark.timeout(300)]

SLEEPER = """\
name: Sleep
steps:
  - id: SLEEP
    run: |
      echo asleep
      sleep 300
    timeout: 10m
"""


def asleep(live: Live) -> int:
    """A run whose container sleeps."""
    live.add_pipeline("sleeper", SLEEPER)
    run = live.start("sleeper")
    live.await_event(run, "output", step="SLEEP")
    assert container_of(live, run) in live.containers(all_of_them=False)
    return run


def container_of(live: Live, run: int) -> str:
    execution = live.steps(run)[-1]["execution_id"]
    return next(name for name in live.containers() if name.endswith(f"-{execution}"))


def is_stopped(live: Live, run: int) -> bool:
    return container_of(live, run) not in live.containers(all_of_them=False)


def cancel(live: Live, run: int) -> float:
    """Cancel over the API; when."""
    began = time.monotonic()
    status, body = live.call("POST", f"runs/{run}/cancel/")
    assert status == 202, body
    return began


def test_a_cancel_stops_the_container_and_ends_the_run(live: Live) -> None:
    run = asleep(live)
    began = cancel(live, run)
    wait_for(lambda: is_stopped(live, run), why="the container's end")
    stopped = time.monotonic() - began
    assert live.await_end(run)["status"] == "cancelled"
    measured(f"container stopped {stopped:.2f} s, run cancelled {time.monotonic() - began:.2f} s after the request")
    step = live.steps(run)[-1]
    assert (step["status"], step["reason"], step["execution_status"]) == ("cancelled", "cancelled", "killed")


def test_a_cancel_while_no_worker_lives_is_applied_when_one_is_back(live: Live) -> None:
    run = asleep(live)
    pid = live.kill("agents", signal.SIGSTOP)
    try:
        cancel(live, run)
        wait_for(lambda: live.rows("SELECT 1 FROM executions_execution e JOIN runs_steprun s ON s.execution_id = e.id"
                                   " WHERE s.run_id = %s AND e.lease_expires_at < clock_timestamp()"
                                   " AND e.stop_requested_at IS NOT NULL", run), why="the lease's end")  # fmt: skip
        assert not is_stopped(live, run)
    finally:
        live.kill("agents", signal.SIGCONT)
    assert live.pid("agents") == pid
    began = time.monotonic()
    wait_for(lambda: is_stopped(live, run), why="the container's end")
    measured(f"container stopped {time.monotonic() - began:.2f} s after the worker was back")
    assert live.await_end(run)["status"] == "cancelled"


def test_a_cancel_survives_the_death_of_the_worker_that_should_apply_it(live: Live) -> None:
    run = asleep(live)
    pid = live.kill("agents", signal.SIGSTOP)
    cancel(live, run)
    live.kill("agents", signal.SIGKILL)
    wait_for(lambda: live.pid("agents") != pid, why="another worker")
    assert live.await_end(run)["status"] == "cancelled"
    assert is_stopped(live, run)


def test_a_cancel_of_a_prepared_step_is_kept_while_no_control_worker_lives(live: Live) -> None:
    """A worker hears the ring for the step long after the cancel, and before anybody has applied it."""
    live.add_pipeline("sleeper", SLEEPER)
    live.kill("agents", signal.SIGSTOP)
    try:
        run = live.start("sleeper")
        wait_for(lambda: any(step["execution_id"] for step in live.steps(run)), why="the prepared step")
        wait_for(lambda: waiting_rings(live), why="the ring")
        live.kill("control", signal.SIGSTOP)
        try:
            cancel(live, run)
            live.kill("agents", signal.SIGCONT)
            wait_for(lambda: not waiting_rings(live), why="a worker that has heard the ring")
        finally:
            live.kill("control", signal.SIGCONT)
    finally:
        live.kill("agents", signal.SIGCONT)
    assert live.await_end(run)["status"] == "cancelled"
    assert [step["status"] for step in live.steps(run)] == ["cancelled"]
    assert live.events(run, "step_started") == []


def waiting_rings(live: Live) -> int:
    """Messages for agents workers that nobody has taken, or that were taken and not begun with."""
    return int(live.redis("LLEN", "djinn-agents")) + int(live.redis("HLEN", "djinn-unacked"))
