"""Redis accepts and never answers: rows are repaired all the same, and everything goes on when it is back."""

from __future__ import annotations

import signal

import pytest

from tests.stack.live import Live, wait_for

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("stack"), pytest.mark.timeout(300)]

ASKING = """\
name: Asking
steps:
  - id: ASK
    approve: {by: [admin], expires: 3s}
"""


def test_an_approval_expires_while_redis_is_frozen(live: Live) -> None:
    live.add_pipeline("asking", ASKING)
    run = live.start("asking")
    asked = "SELECT a.status FROM runs_approval a JOIN runs_steprun s ON s.id = a.step_run_id WHERE s.run_id = %s"
    wait_for(lambda: live.rows(asked, run), why="the question")
    live.kill("redis", signal.SIGSTOP)
    try:
        wait_for(lambda: live.rows(asked, run)[0]["status"] == "expired", seconds=40, why="the end of the question")
    finally:
        live.kill("redis", signal.SIGCONT)
    assert live.await_end(run)["status"] == "failed"
