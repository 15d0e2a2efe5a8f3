"""Model calls that fail and are made again, and failures, at the head of a run's page."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from djinn.accounts.models import User
from djinn.dashboard.live import next_batch
from djinn.dashboard.parts import MOST_CALLS, failing_calls
from djinn.events.log import NewEvent, append, last_seq
from djinn.executions.retries import LOOK_BACK
from djinn.runs.models import Run, StepRun
from tests.dashboard.make import Browser, end_run, end_step, make_run, make_step, tags, tell

pytestmark = pytest.mark.django_db
LIMITED = "rate limited (429)"


def journal(row: StepRun, *records: tuple[str, dict[str, Any]]) -> None:
    """What the relay appends: events of the step run's execution, numbered behind those that are there."""
    start = last_seq(row.run.stream)
    with transaction.atomic():
        append(
            row.run.stream,
            [
                NewEvent(kind, {**data, **tags(row)}, execution=row.execution_id, offset=start + number)
                for number, (kind, data) in enumerate(records)
            ],
        )


def failing(attempt: int, failure: str = LIMITED) -> tuple[str, dict[str, Any]]:
    retry = {"attempt": attempt, "failure": failure, "next_seconds": 2.0}
    return "log", {"level": "warning", "text": f"the call failed: {failure}", "retry": retry}


WENT_THROUGH = ("log", {"level": "info", "text": "the call went through", "retry": None})


def head_of(browse: Browser, user: User, run: Run) -> str:
    """The part of the page that tells of failing calls."""
    html = browse(user).get(f"/runs/{run.pk}/").content.decode()
    return " ".join(html.partition('<div id="run-calls">')[2].partition("</div>")[0].split())


def test_the_newest_failed_attempt_of_a_call_stands_at_the_head(browse: Browser, viewer: User) -> None:
    row = make_step(make_run())
    journal(row, failing(1), failing(2), failing(3))
    head = head_of(browse, viewer, row.run)
    assert f"Call failed: {LIMITED}; retrying in 2 s (attempt 3)" in head
    assert ("attempt 2" in head, f'href="#step-run-{row.pk}"' in head) == (False, True)


def test_a_call_that_went_through_is_no_longer_at_the_head(browse: Browser, viewer: User) -> None:
    row = make_step(make_run())
    journal(row, failing(1), WENT_THROUGH)
    assert head_of(browse, viewer, row.run) == ""


def test_a_step_that_has_ended_has_no_failing_call(browse: Browser, viewer: User) -> None:
    row = make_step(make_run())
    journal(row, failing(1))
    end_step(row, "failed", reason="model", message="gave up")
    assert head_of(browse, viewer, row.run) == ""


def test_calls_of_steps_that_run_at_once_are_each_shown_and_not_all_of_many(browse: Browser, viewer: User) -> None:
    run = make_run()
    for number in range(MOST_CALLS + 2):
        journal(make_step(run, f"S{number}"), failing(1))
    head = head_of(browse, viewer, run)
    assert (head.count("Call failed"), "2 more steps" in head) == (MOST_CALLS, True)


def test_a_hostile_failure_is_text_and_short(browse: Browser, viewer: User) -> None:
    row = make_step(make_run())
    journal(row, failing(1, "<script>\n" * 10_000))
    head = head_of(browse, viewer, row.run)
    assert ("<script>" in head, len(head) < 5000) == (False, True)


def test_only_the_last_events_of_an_execution_are_looked_through() -> None:
    row = make_step(make_run())
    journal(row, failing(1), *[("usage", {"input_tokens": 1})] * (LOOK_BACK - 1))
    assert len(failing_calls(row.run_id).shown) == 1
    journal(row, ("usage", {"input_tokens": 1}))
    assert failing_calls(row.run_id).shown == []


def test_failing_calls_cost_two_queries_however_many_steps_and_events_there_are() -> None:
    counts = []
    for steps in (10, 100):
        run = make_run()
        for number in range(steps):
            journal(make_step(run, f"S{number}"), *[failing(each) for each in range(1, 4)])
        with CaptureQueriesContext(connection) as caught:
            failing_calls(run.pk)
        counts.append(len(caught))
    assert counts == [2, 2]


def test_a_failing_call_and_its_end_come_live() -> None:
    row = make_step(make_run())
    seen = last_seq(row.run.stream)
    journal(row, failing(1))
    batch = next_batch(row.run_id, seen, 0.0)
    assert batch is not None
    assert "innerHTML:#run-calls" in batch.html
    assert f"Call failed: {LIMITED}; retrying in 2 s (attempt 1)" in batch.html
    journal(row, WENT_THROUGH)
    after = next_batch(row.run_id, batch.seq, 0.0)
    assert after is not None
    assert "innerHTML:#run-calls" in after.html
    assert "Call failed:" not in after.html


def test_other_events_of_a_container_send_no_head() -> None:
    row = make_step(make_run())
    seen = last_seq(row.run.stream)
    tell(row, ("text", {"text": "hello"}))
    batch = next_batch(row.run_id, seen, 0.0)
    assert batch is not None
    assert "run-calls" not in batch.html


def test_a_failure_leads_to_the_log_of_its_step_and_is_not_said_over_and_over(browse: Browser, viewer: User) -> None:
    run = make_run()
    row = make_step(run)
    message = "exit code 3: boom"
    tell(row, ("output", {"text": "line\n" * 500 + "boom\n"}))
    tell(row, ("finished", {"status": "failed", "error": {"reason": "error", "message": message}}))
    end_step(row, "failed", reason="error", message=message)
    end_run(run, "failed", reason="error", message=f"step build failed: {message}")
    html = browse(viewer).get(f"/runs/{run.pk}/").content.decode()
    assert f'<a href="#step-run-{row.pk}">Log of build</a>' in html
    assert html.count(message) == 3  # the head, the list of steps, the end in the log
    assert "The work failed" not in html
