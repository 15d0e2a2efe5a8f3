"""Beat, broker and workers as real processes: a schedule starts runs, and a worker that stops answering is told."""

from __future__ import annotations

import json
import os
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from tests.stack.live import Live, wait_for

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("stack"), pytest.mark.timeout(400)]

SILENT_SECONDS = 6.0
BOUND_SECONDS = SILENT_SECONDS + 20.0
"""Until a silent worker must have been told, on a machine that is busy with other tests."""
STEP = "name: Tick\nsteps:\n  - id: TICK\n    run: echo tick\n"


@pytest.fixture(scope="module")
def quick(image: str) -> Iterator[Live]:
    """A stack that counts a worker as dead after a few seconds, and runs steps as processes."""
    stack = Live(image=image, environment={"DJINN_SILENT_SECONDS": f"{SILENT_SECONDS}", "DJINN_RUNNER": "process"})
    try:
        stack.up()
        wait_for(lambda: ready(stack)[0] == 200, seconds=60, why="readiness")
        yield stack
    finally:
        stack.clean()


def ready(stack: Live) -> tuple[int, dict[str, object]]:
    request = urllib.request.Request(f"{stack.url}/readyz", headers={"Accept": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, json.load(exc)


@pytest.mark.parametrize("kind", ["agents", "control"])
def test_a_worker_that_stands_still_is_told_until_it_goes_on(quick: Live, kind: str) -> None:
    stopped = quick.kill(kind, signal.SIGSTOP)
    try:
        document = wait_for(lambda: (found := ready(quick))[0] == 503 and found[1], seconds=BOUND_SECONDS, why="red")
        assert document["problems"] == [f"no {kind} worker has run a canary task in the last {SILENT_SECONDS:g} s"]
    finally:
        os.kill(stopped, signal.SIGCONT)
    wait_for(lambda: ready(quick)[0] == 200, seconds=BOUND_SECONDS, why="green again")


def test_beat_starts_the_run_of_a_schedule_at_its_minute(quick: Live) -> None:
    quick.add_pipeline("tick", STEP)
    status, schedule = quick.call("POST", "schedules/", {"name": "often", "pipeline": "tick", "cron": "* * * * *"})
    assert status == 201, schedule
    (run,) = wait_for(
        lambda: quick.rows("SELECT * FROM runs_run WHERE schedule_id = %s", schedule["id"]), seconds=80, why="a tick"
    )
    assert quick.await_end(run["id"])["status"] == "succeeded"
    assert run["idempotency_key"].startswith(f"schedule-{schedule['id']}-")
    assert quick.call("GET", f"schedules/{schedule['id']}/")[1]["last_message"] == ""
