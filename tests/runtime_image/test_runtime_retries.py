"""Calls that fail: what is asked again, how often, and what is told of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from execution_double import Execution
from gateway_double import Gateway, cut_stream, delta, fault, refusal, says, status, stream

Serve = Callable[..., Gateway]
BROKEN = stream(delta(content="half"), fault("broke_off", failure="broke off", doubtful=True, retry_after=0.01))
LIMITED = refusal(429, kind="rate_limited", failure="rate limited (429)", retry_after=0.01)


def test_answers_that_break_off_five_times_in_a_row_end_the_work(execution: Execution, gateway: Serve) -> None:
    served = gateway(BROKEN)
    ended = execution.agent()
    assert (ended.reason, ended.message) == ("model", "Model call failed after 5 attempts: It failed.")
    assert len(served.requests) == 5


def test_an_answer_of_use_begins_the_count_again(execution: Execution, gateway: Serve) -> None:
    gateway(*[BROKEN] * 4, says(""), *[BROKEN] * 4, says("end"))
    assert execution.agent().finished["summary"] == "end"


def test_streams_that_are_cut_off_count_and_passing_refusals_do_not(execution: Execution, gateway: Serve) -> None:
    served = gateway(*[LIMITED] * 6, *[cut_stream(delta(content="half"))] * 5)
    assert (execution.agent().reason, len(served.requests)) == ("model", 11)


def test_what_the_gateway_says_of_a_provider_is_passed_on_as_it_is(execution: Execution, gateway: Serve) -> None:
    words = "OpenAI refused the key (401). Set OPENAI_API_KEY and restart the run."
    served = gateway(refusal(400, kind="key_refused", message=words, permanent=True))
    ended = execution.agent()
    assert (ended.reason, ended.message, len(served.requests)) == ("rejected", words, 1)


def _retries(execution: Execution, gateway: Serve, failures: int) -> list[dict[str, Any]]:
    gateway(*[LIMITED] * failures, says("end"))
    ended = execution.agent()
    assert ended.finished["summary"] == "end"
    return ended.of("log")


def test_a_retry_is_told_with_its_attempt_its_failure_and_its_pause(execution: Execution, gateway: Serve) -> None:
    first, last = _retries(execution, gateway, 1)
    assert first["retry"] == {"attempt": 2, "failure": "rate limited (429)", "next_seconds": 0.0}
    assert (first["level"], first["text"]) == (
        "warning",
        "Call failed: rate limited (429); retrying in 0.0 s (attempt 2)",
    )
    assert (last["level"], last["retry"], "attempt 2" in last["text"]) == ("info", None, True)


def test_retries_are_told_at_doubling_intervals(execution: Execution, gateway: Serve) -> None:
    records = _retries(execution, gateway, 20)
    assert [record["retry"] and record["retry"]["attempt"] for record in records] == [2, 3, 5, 9, 17, None]


def test_the_deadline_names_the_last_failure_and_the_attempts(execution: Execution, gateway: Serve) -> None:
    gateway(refusal(429, kind="rate_limited", failure="rate limited (429)", retry_after=1000))
    ended = execution.agent(deadline_seconds=1)
    assert ended.reason == "timeout"
    assert "the last call failed once until then, at last: rate limited (429)" in ended.message


@pytest.mark.parametrize("code", [500, 502, 504])
def test_server_errors_of_another_gateway_count(execution: Execution, gateway: Serve, code: int) -> None:
    served = gateway(status(code, Retry_After="0"))
    assert (execution.agent().reason, len(served.requests)) == ("model", 5)
