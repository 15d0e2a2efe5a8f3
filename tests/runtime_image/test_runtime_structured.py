"""Mode "agent" with an output schema: one question, its checked answer, at most two repairs."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from execution_double import Ended, Execution
from gateway_double import (
    Gateway,
    Reply,
    calls,
    delta,
    event,
    finish,
    problems,
    raw_stream,
    refusal,
    says,
    status,
    stream,
    usage,
    whole,
)

Serve = Callable[..., Gateway]
SCHEMA = {"type": "object", "properties": {"why": {"type": "string"}, "a": {"type": "integer"}}, "required": ["a"]}
WANTED = {"name": "plan", "strict": True, "schema": SCHEMA}
GOOD = '{"why": "so", "a": 1}'
FITS = problems()


def ask(execution: Execution, served: Gateway, *checks: Reply, **changes: Any) -> Ended:
    """Run a step with the schema to its end."""
    served.checks = list(checks) or [FITS]
    return execution.agent(output_schema=WANTED, **changes)


def test_an_answer_that_fits_is_the_output(execution: Execution, gateway: Serve) -> None:
    served = gateway(says(GOOD))
    ended = ask(execution, served)
    assert (ended.finished["status"], ended.finished["outputs"]) == ("succeeded", {"answer": {"why": "so", "a": 1}})
    assert [request.body for request in served.checked] == [{"value": {"why": "so", "a": 1}}]


def test_the_question_has_the_format_and_no_tools(execution: Execution, gateway: Serve) -> None:
    served = gateway(says(GOOD))
    ask(execution, served, tools=["bash"])
    body = served.requests[0].body
    assert body["response_format"] == {"type": "json_schema", "json_schema": WANTED}
    assert list(body["response_format"]["json_schema"]["schema"]["properties"]) == ["why", "a"]
    assert "tools" not in body


def test_the_schema_is_in_the_prompt_for_servers_that_ignore_the_format(execution: Execution, gateway: Serve) -> None:
    served = gateway(says(GOOD))
    ask(execution, served)
    system, prompt = served.requests[0].messages
    assert (system["content"].startswith("You test."), json.dumps(SCHEMA) in system["content"]) == (True, True)
    assert prompt["content"] == "Do it."


def test_a_name_that_providers_refuse_is_mended(execution: Execution, gateway: Serve) -> None:
    served = gateway(says(GOOD))
    served.checks = [FITS]
    execution.agent(output_schema={**WANTED, "name": "mein Plan für " + "x" * 100})
    name = served.requests[0].body["response_format"]["json_schema"]["name"]
    assert (name[:14], len(name)) == ("mein_Plan_f_r_", 64)


def test_the_check_bears_the_token(execution: Execution, gateway: Serve) -> None:
    served = gateway(says(GOOD))
    ask(execution, served)
    assert served.checked[0].headers["Authorization"] == "Bearer secret-token"


def test_text_message_and_usage_are_recorded_as_an_agents_are(execution: Execution, gateway: Serve) -> None:
    ended = ask(execution, gateway(says(GOOD)))
    kinds = [record.type for record in ended.records]
    assert kinds == ["ready", "text", "message", "usage", "finished"]
    assert ended.of("message") == [{"role": "assistant", "text": GOOD, "tool_calls": [], "turn": 1}]


FORMS = [
    GOOD,
    f"\n  {GOOD}\n",
    f"```json\n{GOOD}\n```",
    f"Here it is:\n\n```\n{GOOD}\n```\nGood luck.",
    '{"why": "```", "a":\n 1}',
]


@pytest.mark.parametrize("text", FORMS)
def test_the_value_is_the_whole_text_or_its_only_fenced_block(execution: Execution, gateway: Serve, text: str) -> None:
    served = gateway(says(text))
    assert (ask(execution, served).finished["outputs"]["answer"]["a"], len(served.requests)) == (1, 1)


BOMBS = ["[" * 100_000, "[" * 600 + "]" * 600, '{"a":' * 70 + "1" + "}" * 70]
BROKEN = [
    "",
    "Sure!",
    '{"a": 1',
    f"{GOOD} {GOOD}",
    f"Here: {GOOD}",
    f"```\n{GOOD}\n```\n```\n{GOOD}\n```",
    "```\n```",
    '{"a": NaN}',
    '{"a": 1e999}',
    '{"a": "\\u0000"}',
    '{"a": "\\ud800"}',
    *BOMBS,
]


@pytest.mark.parametrize("text", BROKEN, ids=lambda text: text[:24] or "empty")
def test_what_is_no_json_value_is_asked_for_again(execution: Execution, gateway: Serve, text: str) -> None:
    served = gateway(says(text) if text else stream(finish()), says(GOOD))
    ended = ask(execution, served)
    assert (ended.finished["status"], len(served.requests), len(served.checked)) == ("succeeded", 2, 1)
    _, _, answer, repair = served.requests[1].messages
    assert (answer["role"], bool(answer["content"])) == ("assistant", True)
    assert "it is no JSON value: " in repair["content"]


def test_an_answer_that_does_not_fit_is_asked_for_again_with_the_problems(execution: Execution, gateway: Serve) -> None:
    served = gateway(says('{"a": "x"}'), says(GOOD))
    ended = ask(execution, served, problems("/a: 'x' is not of type 'integer'", "and more"), FITS)
    assert ended.finished["outputs"] == {"answer": {"why": "so", "a": 1}}
    assert [message["content"] for message in served.requests[1].messages[2:3]] == ['{"a": "x"}']
    assert "- /a: 'x' is not of type 'integer'\n- and more\n" in served.requests[1].messages[3]["content"]


def test_problems_are_shown_in_the_journal(execution: Execution, gateway: Serve) -> None:
    ended = ask(execution, gateway(says("{}"), says(GOOD)), problems("the whole: no a"), FITS)
    assert "the whole: no a" in ended.of("log")[0]["message"]


def test_a_repair_may_be_repaired(execution: Execution, gateway: Serve) -> None:
    served = gateway(says("{"), says("{}"), says(GOOD))
    ended = ask(execution, served, problems("no a"), FITS)
    assert (ended.finished["status"], len(served.requests)) == ("succeeded", 3)
    assert [message["role"] for message in served.requests[2].messages[2:]] == ["assistant", "user"] * 2


def test_three_answers_that_do_not_fit_are_a_failure_without_outputs(execution: Execution, gateway: Serve) -> None:
    served = gateway(says("{}"))
    ended = ask(execution, served, problems("the whole: 'a' is a required property"))
    assert (ended.reason, ended.finished["outputs"], len(served.requests)) == ("invalid_output", {}, 3)
    assert "'a' is a required property" in ended.message


def test_an_answer_too_large_for_an_output_is_told_so(execution: Execution, gateway: Serve) -> None:
    served = gateway(says(json.dumps({"why": "x" * 60_000, "a": 1})), says(GOOD))
    ended = ask(execution, served)
    assert (ended.finished["status"], len(served.checked)) == ("succeeded", 1)
    assert "at most" in served.requests[1].messages[3]["content"]


def test_a_large_answer_is_not_sent_back_whole(execution: Execution, gateway: Serve) -> None:
    served = gateway(says("x" * 500_000), says(GOOD))
    ask(execution, served)
    assert len(served.requests[1].messages[2]["content"]) < 70_000


def test_ten_megabytes_are_not_read_to_their_end(execution: Execution, gateway: Serve) -> None:
    pieces = [event(delta(content="[" * 100_000)) for _ in range(100)]
    ended = ask(execution, gateway(raw_stream(*pieces, event(finish()))))
    assert (ended.reason, len(ended.journal) < 2_000_000) == ("output_limit", True)


def test_ten_megabytes_at_once_are_too_large(execution: Execution, gateway: Serve) -> None:
    served = gateway(whole("[" * 10_000_000))
    assert (ask(execution, served).reason, len(served.requests)) == ("output_limit", 1)


def test_an_answer_that_was_cut_off_is_told_as_that(execution: Execution, gateway: Serve) -> None:
    served = gateway(stream(delta(content='{"a": '), finish("length"), usage()))
    ended = ask(execution, served)
    assert (ended.reason, "cut off at its limit" in ended.message, len(served.requests)) == ("output_limit", True, 1)


REFUSALS = [
    (stream(delta(refusal="I will "), delta(refusal="not."), finish(), usage()), "I will not."),
    (stream(delta(content=""), finish("content_filter")), "content filter"),
]


@pytest.mark.parametrize(("reply", "words"), REFUSALS, ids=["refusal", "filter"])
def test_a_refusal_is_told_as_that(execution: Execution, gateway: Serve, reply: Reply, words: str) -> None:
    served = gateway(reply)
    ended = ask(execution, served)
    assert (ended.reason, ended.message) == ("model", f"the model refused to answer: {words}")
    assert len(served.requests) == 1


def test_calls_of_tools_that_nobody_offered_are_no_answer(execution: Execution, gateway: Serve) -> None:
    served = gateway(calls(("bash", {"command": "touch here"})), says(GOOD))
    ended = ask(execution, served)
    assert (ended.finished["status"], (execution.workspace / "here").exists()) == ("succeeded", False)
    assert "tool_calls" not in served.requests[1].messages[2]


# --- Providers that refuse the format ---------------------------------------------------------------------------------
@pytest.mark.parametrize("code", [400, 422])
def test_a_provider_that_refuses_the_format_is_asked_without_it(
    execution: Execution, gateway: Serve, code: int
) -> None:
    served = gateway(status(code, "response_format is unavailable"), says("{}"), says(GOOD))
    ended = ask(execution, served, problems("no a"), FITS)
    assert ended.finished["status"] == "succeeded"
    assert ["response_format" in request.body for request in served.requests] == [True, False, False]
    assert "response_format is unavailable" in ended.of("log")[0]["message"]


def test_the_refused_format_does_not_count_as_an_answer(execution: Execution, gateway: Serve) -> None:
    served = gateway(status(400), says("{}"))
    assert (ask(execution, served, problems("no")).reason, len(served.requests)) == ("invalid_output", 4)


def test_a_provider_that_refuses_either_way_is_the_models_failure(execution: Execution, gateway: Serve) -> None:
    served = gateway(status(400, "too long"))
    ended = ask(execution, served)
    assert (ended.reason, "too long" in ended.message, len(served.requests)) == ("model", True, 2)


@pytest.mark.parametrize(("code", "reason"), [(401, "rejected"), (402, "budget"), (404, "model")])
def test_another_refusal_ends_the_work_at_once(execution: Execution, gateway: Serve, code: int, reason: str) -> None:
    served = gateway(status(code, "because"))
    assert (ask(execution, served).reason, len(served.requests)) == (reason, 1)


def test_a_provider_that_is_busy_is_waited_for(execution: Execution, gateway: Serve) -> None:
    served = gateway(status(429, Retry_After="0"), says(GOOD))
    assert ask(execution, served).finished["status"] == "succeeded"
    assert "response_format" in served.requests[1].body


# --- The check --------------------------------------------------------------------------------------------------------
NONSENSE = whole("fine")


@pytest.mark.parametrize("first", [status(503, Retry_After="0"), status(429, Retry_After="0"), NONSENSE])
def test_a_check_that_was_not_answered_is_asked_for_again(execution: Execution, gateway: Serve, first: Reply) -> None:
    served = gateway(says(GOOD))
    ended = ask(execution, served, first, FITS)
    assert (ended.finished["status"], len(served.requests), len(served.checked)) == ("succeeded", 1, 2)


@pytest.mark.parametrize(("code", "reason"), [(409, "error"), (400, "error"), (401, "rejected")])
def test_a_check_that_is_refused_is_no_success(execution: Execution, gateway: Serve, code: int, reason: str) -> None:
    ended = ask(execution, gateway(says(GOOD)), status(code, "because"))
    assert (ended.reason, "could not be checked" in ended.message) == (reason, True)


WRONG = [5, {}, {**WANTED, "strict": "yes"}, {**WANTED, "schema": True}, {**WANTED, "name": None}, {**WANTED, "x": 1}]


@pytest.mark.parametrize("wanted", WRONG, ids=str)
def test_a_brief_with_a_schema_of_the_wrong_shape_is_refused(execution: Execution, wanted: Any) -> None:
    ended = execution.agent(output_schema=wanted)
    assert (ended.reason, "output_schema" in ended.message) == ("error", True)


def test_a_provider_that_refused_for_good_is_not_asked_without_the_format(execution: Execution, gateway: Serve) -> None:
    served = gateway(refusal(400, kind="key_refused", message="OpenAI refused the key (401).", permanent=True))
    ended = ask(execution, served)
    assert (ended.reason, ended.message, len(served.requests)) == ("rejected", "OpenAI refused the key (401).", 1)
