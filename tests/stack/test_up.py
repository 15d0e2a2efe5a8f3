"""`manage.py up` leaves nothing behind, and what it interrupted is tried again."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from tests.stack.live import Live, measured

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("stack"), pytest.mark.timeout(300)]

NAP = """\
name: Nap
defaults: {retries: {max: 0}}
steps:
  - id: NAP
    run: |
      echo asleep
      sleep 6
"""


@pytest.fixture
def own(image: str) -> Iterator[Live]:
    """A stack that the test stops itself."""
    stack = Live(image=image)
    try:
        stack.add_pipeline("nap", NAP)
        stack.up()
        yield stack
    finally:
        stack.clean()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_leaves_nothing_and_the_next_start_tries_again(own: Live, number: signal.Signals) -> None:
    run = own.start("nap")
    own.await_event(run, "output", step="NAP")
    assert len(own.containers()) == 1
    measured(f"stopped in {own.down(number):.1f} s")
    assert (own.processes(), own.containers(), own.sockets()) == ({}, [], [])
    own.up()
    assert own.await_end(run)["status"] == "succeeded"
    assert [(s["attempt"], s["status"], s["reason"]) for s in own.steps(run)] == [
        (1, "failed", "lost"),
        (2, "succeeded", ""),
    ]


def test_a_stack_that_is_killed_takes_its_processes_along_and_the_next_start_goes_on(own: Live) -> None:
    run = own.start("nap")
    own.await_event(run, "output", step="NAP")
    assert own.process is not None
    own.process.kill()
    own.process.wait(10)
    own.up()
    assert own.await_end(run)["status"] == "succeeded"
    assert [(s["attempt"], s["status"]) for s in own.steps(run)] == [(1, "succeeded")]
