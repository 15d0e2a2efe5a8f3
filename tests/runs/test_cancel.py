"""A cancel at each moment of a run's life ends it as cancelled, and what has ended stays as it is."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from django.db import connection

from djinn.core.errors import Conflict
from djinn.runs import engine
from djinn.runs.models import Run
from djinn.runs.services import cancel_run
from tests.make import begin, claimed, expire, history, make_user, open_steps, played, prepared, step, told, work

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("home")]


def test_a_run_that_nobody_has_looked_at_is_cancelled_without_a_step() -> None:
    run = begin(step("A"))
    cancel_run(run=run)
    assert work(run).status == "cancelled"
    assert history(run) == []


def test_a_queued_step_is_cancelled_before_it_begins() -> None:
    run = begin(step("A"))
    engine.advance_run(run.pk)
    cancel_run(run=run)
    assert work(run).status == "cancelled"
    assert history(run) == [("A", 1, 1, "cancelled", "cancelled")]


def test_a_prepared_step_is_cancelled_without_a_container() -> None:
    run = begin(step("A"))
    execution = prepared(run).execution
    assert execution is not None
    cancel_run(run=run)
    assert work(run).status == "cancelled"
    execution.refresh_from_db()
    assert (execution.status, execution.lease_token, execution.image_id) == ("killed", 1, "")


def test_a_step_that_was_claimed_by_a_worker_that_died_is_cancelled_by_the_next() -> None:
    run = begin(step("A"))
    step_run = prepared(run)
    assert step_run.execution is not None
    claimed(step_run.execution, host="vm")
    expire(step_run.execution)
    cancel_run(run=run)
    engine.advance_run(run.pk)
    assert history(run)[-1][3] == "queued"
    step_run.execution.__class__.objects.update(host="")
    assert work(run).status == "cancelled"
    assert history(run) == [("A", 1, 1, "cancelled", "cancelled")]


def test_a_running_step_is_stopped() -> None:
    run = begin(step("A", played(hold=True)))
    number = prepared(run).pk
    worker = threading.Thread(target=lambda: (engine.execute_step(number), connection.close()))
    worker.start()
    await_event(run, "ready")
    cancel_run(run=run)
    engine.advance_run(run.pk)
    worker.join(20)
    assert work(run).status == "cancelled"
    assert history(run) == [("A", 1, 1, "cancelled", "cancelled")]


def test_what_a_step_finished_before_the_cancel_stays_and_nothing_more_starts() -> None:
    run = begin(step("A"), step("B"))
    engine.advance_run(run.pk)
    (number,) = open_steps(run)
    engine.prepare_step(number)
    engine.execute_step(number)
    cancel_run(run=run)
    engine.settle_step(number)
    assert work(run).status == "cancelled"
    assert history(run) == [("A", 1, 1, "succeeded", "")]


def test_a_waiting_retry_is_cancelled() -> None:
    run = begin(step("A", played(finished=None), retries={"max": 1, "backoff": "60s"}))
    engine.advance_run(run.pk)
    cancel_run(run=run)
    assert work(run).status == "cancelled"


@pytest.mark.parametrize("script", ["exit 0", played(finished={"status": "failed"})])
def test_a_run_that_has_ended_cannot_be_cancelled(script: str) -> None:
    run = work(begin(step("A", script)))
    before = told(run)
    with pytest.raises(Conflict, match="has ended already"):
        cancel_run(run=run)
    assert told(run) == before


def test_a_second_cancel_is_no_error_and_the_first_stays() -> None:
    run, first, second = begin(step("A")), make_user("first"), make_user("second")
    cancel_run(run=run, user=first)
    cancel_run(run=run, user=second)
    run.refresh_from_db()
    assert run.cancelled_by == first
    assert [data["by"] for _, data in told(run, "cancel_requested")] == ["first"]


def await_event(run: Run, kind: str) -> Any:
    deadline = time.monotonic() + 20
    while not (events := told(run, kind)):
        assert time.monotonic() < deadline, f"no event {kind}"
        time.sleep(0.02)
    return events
