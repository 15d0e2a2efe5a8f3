"""A worker that is frozen inside a transaction keeps its locks only for a while."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.checker import check
from tests.faults.harness import Watched, linear, quiet, watched

pytestmark = [pytest.mark.bare, pytest.mark.xdist_group("checker"), pytest.mark.timeout(180)]

FROZEN = "relay.before_commit=stop:300@3"
"""Longer than this test waits: whoever needs the rows meanwhile must get them from PostgreSQL."""


@pytest.fixture
def frozen() -> Iterator[Watched]:
    with watched(faults=FROZEN, environment={"DJINN_HOST_LOST_SECONDS": "3"}) as live:
        yield live


def test_an_execution_whose_worker_is_frozen_in_a_transaction_can_be_given_up_meanwhile(frozen: Watched) -> None:
    frozen.add_pipeline("line", linear(1, things=20, seconds=0.2))
    run = frozen.intend("line")
    lost = frozen.await_event(run, "step_finished", step="S1", seconds=40)
    assert lost["data"]["reason"] == "lost"
    assert "stop:300" in frozen.hits()["relay.before_commit"]
    frozen.wake(frozen.pid("agents"))
    quiet(frozen, [run])
    assert [str(violation) for violation in check(frozen, [run])] == []
