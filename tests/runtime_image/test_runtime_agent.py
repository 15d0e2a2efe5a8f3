"""Mode "agent": the loop, and the model's answers and failures."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

import pytest
from execution_double import Execution
from gateway_double import (
    Gateway,
    call_delta,
    calls,
    completes,
    cut_stream,
    delta,
    event,
    finish,
    raw_stream,
    says,
    serving,
    silence,
    status,
    stream,
    usage,
    whole,
)

Serve = Callable[..., Gateway]


def test_complete_ends_the_work_with_outputs_and_summary(execution: Execution, gateway: Serve) -> None:
    gateway(completes("all good", A="x", B=[1, {"c": None}]))
    data = execution.agent(outputs=["A", "B"]).finished
    assert (data["status"], data["outputs"], data["summary"]) == (
        "succeeded",
        {"A": "x", "B": [1, {"c": None}]},
        "all good",
    )


def test_fail_ends_the_work_as_failed(execution: Execution, gateway: Serve) -> None:
    gateway(calls(("fail", {"message": "no way"})))
    ended = execution.agent()
    assert (ended.exit_code, ended.reason, ended.message) == (0, "error", "no way")


def test_a_plain_answer_is_the_summary_where_no_output_is_declared(execution: Execution, gateway: Serve) -> None:
    gateway(says("The answer is 4."))
    data = execution.agent().finished
    assert (data["status"], data["summary"]) == ("succeeded", "The answer is 4.")


def test_a_plain_answer_is_reminded_where_outputs_are_declared(execution: Execution, gateway: Serve) -> None:
    served = gateway(says("done!"), completes(A="1"))
    execution.agent(outputs=["A"])
    assert "complete" in served.requests[1].messages[-1]["content"]


def test_a_model_that_never_calls_complete_fails_after_three_reminders(execution: Execution, gateway: Serve) -> None:
    served = gateway(says("done!"))
    ended = execution.agent(outputs=["A"])
    assert (ended.reason, len(served.requests)) == ("error", 4)


def test_an_empty_answer_is_reminded(execution: Execution, gateway: Serve) -> None:
    served = gateway(stream(finish()), says("now"))
    ended = execution.agent()
    assert (ended.finished["summary"], len(served.requests)) == ("now", 2)


def test_the_turns_are_limited(execution: Execution, gateway: Serve) -> None:
    served = gateway(calls(("ls", {})))
    ended = execution.agent(max_turns=3)
    assert (ended.reason, len(served.requests)) == ("turns", 3)


def test_the_request_is_a_streamed_chat_completion_with_token_and_turn(execution: Execution, gateway: Serve) -> None:
    served = gateway(calls(("ls", {})), says("end"))
    execution.agent()
    request = served.requests[1]
    assert (request.path, request.body["model"], request.body["stream"], request.body["stream_options"]) == (
        "/v1/chat/completions",
        "scripted",
        True,
        {"include_usage": True},
    )
    assert (request.headers["Authorization"], request.headers["X-Djinn-Turn"]) == ("Bearer secret-token", "2")


def test_system_and_prompt_come_from_the_brief(execution: Execution, gateway: Serve) -> None:
    served = gateway(says("end"))
    execution.agent()
    system, prompt = served.requests[0].messages
    assert (system["content"].startswith("You test.\n\n"), prompt["content"]) == (True, "Do it.")


def test_only_the_granted_tools_are_offered_with_complete_and_fail(execution: Execution, gateway: Serve) -> None:
    served = gateway(says("end"))
    execution.agent(tools=["read", "fly"])
    names = [tool["function"]["name"] for tool in served.requests[0].body["tools"]]
    assert names == ["read", "complete", "fail"]


def test_a_tool_that_is_not_granted_is_not_run(execution: Execution, gateway: Serve) -> None:
    gateway(calls(("bash", {"command": "touch here"})), says("end"))
    ended = execution.agent(tools=["read"])
    assert (ended.result()["is_error"], (execution.workspace / "here").exists()) == (True, False)


def test_text_and_thinking_are_recorded_as_they_come(execution: Execution, gateway: Serve) -> None:
    chunks = [delta(reasoning_content="hm"), delta(reasoning="mm"), delta(content="He"), delta(content="y")]
    gateway(stream(*chunks, finish(), usage()))
    ended = execution.agent()
    assert (ended.text("thinking"), ended.text("text")) == ("hmmm", "Hey")


def test_text_is_recorded_while_the_model_still_speaks(execution: Execution, gateway: Serve) -> None:
    def reply(exchange: object) -> None:
        exchange.begin_stream()  # type: ignore[attr-defined]
        exchange.chunk(event(delta(content="early")))  # type: ignore[attr-defined]
        exchange.connection.recv(1)  # type: ignore[attr-defined]

    gateway(reply)
    execution.give_agent()
    process = execution.start()
    execution.until(lambda: any(record.data.get("text") == "early" for record in execution.records()))
    process.send_signal(signal.SIGTERM)
    assert execution.wait(process).reason == "cancelled"


def test_text_is_recorded_before_the_message_that_it_belongs_to(execution: Execution, gateway: Serve) -> None:
    gateway(says("hello"))
    kinds = [record.type for record in execution.agent().records]
    assert kinds.index("text") < kinds.index("message")


def test_message_tool_call_and_result_are_recorded(execution: Execution, gateway: Serve) -> None:
    gateway(calls(("ls", {"path": "."})), says("end"))
    ended = execution.agent()
    kinds = [record.type for record in ended.records if record.type != "text"]
    assert kinds == ["ready", "message", "usage", "tool_call", "tool_result", "message", "usage", "finished"]
    assert ended.of("tool_call") == [{"id": "call_0", "name": "ls", "arguments": {"path": "."}}]
    assert set(ended.result()) == {"id", "name", "text", "is_error", "seconds"}


def test_usage_is_recorded_with_cached_tokens(execution: Execution, gateway: Serve) -> None:
    gateway(stream(delta(content="x"), finish(), usage(100, 20, 40)))
    expected = {"input_tokens": 100, "output_tokens": 20, "cached_tokens": 40, "turn": 1}
    assert execution.agent().of("usage") == [expected]


def test_an_answer_that_is_not_streamed_is_taken(execution: Execution, gateway: Serve) -> None:
    gateway(whole("plain"))
    ended = execution.agent()
    assert (ended.finished["summary"], ended.of("usage")[0]["input_tokens"]) == ("plain", 7)


def test_the_tool_result_goes_back_to_the_model(execution: Execution, gateway: Serve) -> None:
    (execution.workspace / "f").write_text("x")
    served = gateway(calls(("ls", {})), says("end"))
    execution.agent()
    message = served.requests[1].messages[-1]
    assert message == {"role": "tool", "tool_call_id": "call_0", "content": "f  1 bytes"}


def test_several_calls_of_one_answer_run_in_order(execution: Execution, gateway: Serve) -> None:
    writes = [("write", {"path": "f", "content": text}) for text in ("one", "two")]
    gateway(calls(*writes), says("end"))
    execution.agent()
    assert (execution.workspace / "f").read_text() == "two"


STREAM = b"".join(
    [
        b": a comment\r\n\r\n",
        b"event: message\r\nid: 1\r\n" + event(delta(content="sch\u00f6n ")).replace(b"\n\n", b"\r\n\r\n"),
        event(delta(content="gr\u00fcn")).replace(b"\\u00fc", "\u00fc".encode()),
        event(finish()),
        b"data: [DONE]\n\n",
    ]
)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_a_stream_may_be_cut_anywhere(execution: Execution, gateway: Serve, size: int) -> None:
    gateway(raw_stream(*[STREAM[start : start + size] for start in range(0, len(STREAM), size)]))
    assert execution.agent().finished["summary"] == "sch\u00f6n gr\u00fcn"


def test_calls_whose_pieces_interleave_are_put_together(execution: Execution, gateway: Serve) -> None:
    pieces = [
        call_delta(0, "write", '{"path": "a", ', "id0"),
        call_delta(1, "write", '{"path": "b", ', "id1"),
        call_delta(0, None, '"content": "A"}'),
        call_delta(1, None, '"content": "B"}'),
    ]
    gateway(stream(*pieces, finish("tool_calls")), says("end"))
    execution.agent()
    assert [(execution.workspace / name).read_text() for name in "ab"] == ["A", "B"]


MALFORMED = [
    ("ls", '{"path": '),
    ("ls", "[]"),
    ("ls", '"x"'),
    ("ls", '{"path": NaN}'),
    ("ls", '{"path": 5}'),
    ("ls", '{"where": "."}'),
    ("ls", '{"path": "\\ud800"}'),
    ("ls", '{"path": "\\u0000"}'),
    ("ls", "[" * 100_000),
    ("ls", '{"path": ' + "[" * 600 + "]" * 600 + "}"),
    ("complete", '{"summary": "", "outputs": ' + '{"a": ' * 65 + "1" + "}" * 66),
    ("read", "{}"),
    ("read", '{"path": "f", "offset": true}'),
    ("read", '{"path": "f", "offset": "1"}'),
    ("read", '{"path": "f", "offset": 0}'),
    ("bash", '{"command": "a\\u0000b", "timeout_seconds": 1}'),
    ("bash", '{"command": "true", "timeout_seconds": -1}'),
    ("bash", '{"command": ["ls"]}'),
    ("complete", '{"outputs": "x", "summary": "s"}'),
    ("complete", '{"outputs": {}}'),
    ("fail", "{}"),
    ("fly", "{}"),
    ("", "{}"),
]


@pytest.mark.parametrize("tool", MALFORMED, ids=lambda tool: f"{tool[0]} {tool[1][:30]!r}")
def test_a_malformed_call_goes_back_to_the_model(execution: Execution, gateway: Serve, tool: tuple[str, str]) -> None:
    gateway(calls(tool), completes())
    ended = execution.agent()
    assert (ended.result()["is_error"], ended.finished["status"]) == (True, "succeeded")


def test_a_character_whose_halves_come_in_two_pieces_is_whole(execution: Execution, gateway: Serve) -> None:
    halves = [event(delta(content=half)) for half in ("\ud83d", "\ude00")]
    gateway(raw_stream(*halves, event(finish())))
    assert execution.agent().finished["summary"] == "\U0001f600"


def test_malformed_arguments_are_not_sent_to_the_provider_again(execution: Execution, gateway: Serve) -> None:
    served = gateway(calls(("ls", '{"path": ')), completes())
    execution.agent()
    assert served.requests[1].messages[2]["tool_calls"][0]["function"]["arguments"] == "{}"


@pytest.mark.parametrize("outputs", [{}, {"A": 1, "B": 2}, {"A": "x" * 60_000}], ids=["missing", "extra", "large"])
def test_wrong_outputs_go_back_to_the_model(execution: Execution, gateway: Serve, outputs: dict[str, object]) -> None:
    gateway(calls(("complete", {"outputs": outputs, "summary": ""})), completes(A="right"))
    ended = execution.agent(outputs=["A"])
    assert (ended.result()["is_error"], ended.finished["outputs"]) == (True, {"A": "right"})


def test_a_stream_that_is_cut_off_is_asked_for_again(execution: Execution, gateway: Serve) -> None:
    served = gateway(cut_stream(delta(content="half")), says("whole"))
    ended = execution.agent()
    assert (ended.finished["summary"], len(served.requests), len(ended.of("log"))) == ("whole", 2, 2)


def test_a_tool_call_that_is_cut_off_is_not_run(execution: Execution, gateway: Serve) -> None:
    gateway(cut_stream(call_delta(0, "bash", '{"command": "touch here"}', "c")), says("end"))
    execution.agent()
    assert not (execution.workspace / "here").exists()


def test_a_stream_that_ends_without_a_finish_reason_is_asked_for_again(execution: Execution, gateway: Serve) -> None:
    served = gateway(raw_stream(event(delta(content="half"))), says("whole"))
    assert (execution.agent().finished["summary"], len(served.requests)) == ("whole", 2)


def test_a_stream_without_done_is_whole_when_the_model_has_finished(execution: Execution, gateway: Serve) -> None:
    served = gateway(raw_stream(event(delta(content="all")), event(finish())))
    assert (execution.agent().finished["summary"], len(served.requests)) == ("all", 1)


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504, 529])
def test_a_passing_refusal_is_tried_again(execution: Execution, gateway: Serve, code: int) -> None:
    served = gateway(status(code, Retry_After="0"), says("end"))
    ended = execution.agent()
    assert (ended.finished["status"], len(served.requests)) == ("succeeded", 2)


def test_a_retry_after_is_waited_for(execution: Execution, gateway: Serve) -> None:
    gateway(status(429, Retry_After="2"), says("end"))
    began = time.monotonic()
    execution.agent()
    assert time.monotonic() - began >= 2


def test_a_long_retry_after_ends_with_the_deadline(execution: Execution, gateway: Serve) -> None:
    gateway(status(429, Retry_After="1000"))
    assert execution.agent(deadline_seconds=1).reason == "timeout"


REFUSALS = [(400, "model"), (404, "model"), (413, "model"), (422, "model"), (401, "rejected"), (403, "rejected")]


@pytest.mark.parametrize(("code", "reason"), [*REFUSALS, (402, "budget")])
def test_a_refusal_ends_the_work(execution: Execution, gateway: Serve, code: int, reason: str) -> None:
    served = gateway(status(code, "because"))
    ended = execution.agent()
    assert (ended.reason, "because" in ended.message, len(served.requests)) == (reason, True, 1)


def test_a_server_error_five_times_in_a_row_ends_the_work(execution: Execution, gateway: Serve) -> None:
    served = gateway(status(500, Retry_After="0"))
    assert (execution.agent().reason, len(served.requests)) == ("model", 5)


@pytest.mark.parametrize(
    "error",
    [{"message": "slow", "code": 429}, {"message": "slow", "type": "overloaded_error"}, {"message": "slow"}, "slow"],
    ids=str,
)
def test_a_passing_error_inside_the_stream_is_tried_again(execution: Execution, gateway: Serve, error: object) -> None:
    served = gateway(stream(delta(content="x"), {"error": error}), says("end"))
    assert (execution.agent().finished["status"], len(served.requests)) == ("succeeded", 2)


def test_a_lasting_error_inside_the_stream_ends_the_work(execution: Execution, gateway: Serve) -> None:
    gateway(stream({"error": {"message": "too long", "type": "invalid_request_error"}}))
    ended = execution.agent()
    assert (ended.reason, ended.message) == ("model", "too long")


NONSENSE = [b"data: {\n\n", b"data: []\n\n", b"data: 5\n\n", b'data: {"choices": 5}\n\n', b"garbage", b""]


@pytest.mark.parametrize("content", NONSENSE)
def test_a_nonsensical_stream_is_tried_again(execution: Execution, gateway: Serve, content: bytes) -> None:
    gateway(raw_stream(*[piece for piece in [content] if piece]), says("end"))
    assert execution.agent().finished["status"] == "succeeded"


def test_a_gateway_that_comes_up_later_is_waited_for(execution: Execution) -> None:
    execution.give_agent()
    process = execution.start()
    execution.until(lambda: any(record.type == "log" for record in execution.records()))
    with serving(execution.socket, [says("end")]):
        assert execution.wait(process).finished["status"] == "succeeded"


def test_sigterm_ends_a_wait_for_the_model(execution: Execution, gateway: Serve) -> None:
    served = gateway(silence())
    execution.give_agent()
    process = execution.start()
    execution.until(lambda: bool(served.requests))
    process.send_signal(signal.SIGTERM)
    assert execution.wait(process).reason == "cancelled"


def test_the_deadline_ends_a_wait_for_the_model(execution: Execution, gateway: Serve) -> None:
    gateway(silence())
    assert execution.agent(deadline_seconds=1).reason == "timeout"


def test_the_token_is_not_in_the_journal(execution: Execution, gateway: Serve) -> None:
    gateway(calls(("bash", {"command": "env"})), says("end"))
    assert b"secret-token" not in execution.agent().journal


def test_the_records_of_an_agent_are_numbered_without_gaps(execution: Execution, gateway: Serve) -> None:
    gateway(*[calls(("bash", {"command": "seq 1000"}))] * 5, says("end"))
    numbers = [record.n for record in execution.agent().records]
    assert numbers == list(range(1, len(numbers) + 1))
