"""One assembler of answers: calls by id, signatures kept, what is whole."""

from __future__ import annotations

from typing import Any

import pytest

from runtime_image.djinn_runtime.answer import Answer, AnswerBuilder


def piece(arguments: str | None = None, *, name: str | None = None, **keys: Any) -> dict[str, Any]:
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    return {**keys, **({"function": function} if function else {})}


def delta(*pieces: dict[str, Any], **values: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {**values, **({"tool_calls": list(pieces)} if pieces else {})}}]}


def built(*chunks: dict[str, Any]) -> Answer:
    builder = AnswerBuilder(3)
    for chunk in chunks:
        builder.add(chunk)
    return builder.answer()


READ, GREP = '{"path": "a"}', '{"pattern": "b"}'
PARALLEL = {
    "openai: numbers, then pieces": [
        delta(piece("", index=0, id="r", name="read")), delta(piece(READ, index=0)),
        delta(piece("", index=1, id="g", name="grep")), delta(piece(GREP, index=1)),
    ],
    "pieces that interleave": [
        delta(piece("", index=0, id="r", name="read"), piece("", index=1, id="g", name="grep")),
        delta(piece(READ[:4], index=0)), delta(piece(GREP[:5], index=1)),
        delta(piece(READ[4:], index=0)), delta(piece(GREP[5:], index=1)),
    ],
    "google: every number is 0": [
        delta(piece(READ, index=0, id="r", name="read")), delta(piece(GREP, index=0, id="g", name="grep")),
    ],
    "google: no number, one delta": [delta(piece(READ, id="r", name="read"), piece(GREP, id="g", name="grep"))],
    "google: no number, two deltas": [delta(piece(READ, id="r", name="read")), delta(piece(GREP, id="g", name="grep"))],
    "google: no number, arguments in pieces": [
        delta(piece("", id="r", name="read")), delta(piece(READ[:4])), delta(piece(READ[4:])),
        delta(piece(GREP[:4], id="g", name="grep")), delta(piece(GREP[4:])),
    ],
    "the id in every piece": [
        delta(piece(READ[:4], index=0, id="r", name="read")), delta(piece(GREP, index=0, id="g", name="grep")),
        delta(piece(READ[4:], index=0, id="r")),
    ],
    "the id behind the name": [
        delta(piece(name="read", index=0)), delta(piece(READ, index=0, id="r")),
        delta(piece(GREP, index=1, id="g", name="grep")),
    ],
}  # fmt: skip


@pytest.mark.parametrize("chunks", PARALLEL.values(), ids=PARALLEL.keys())
def test_parallel_calls_stay_apart_however_they_are_numbered(chunks: list[dict[str, Any]]) -> None:
    calls = [(call.id, call.name, call.arguments) for call in built(*chunks).calls]
    assert calls == [("r", "read", READ), ("g", "grep", GREP)]


NAMELESS = {
    "empty ids and one number": [
        delta(piece(READ, index=0, id="", name="read")), delta(piece(READ, index=0, id="", name="read")),
    ],
    "nothing but names": [delta(piece(READ, name="read")), delta(piece(READ, name="read"))],
    "nothing but names in one delta": [delta(piece(READ, name="read"), piece(READ, name="read"))],
}  # fmt: skip


@pytest.mark.parametrize("chunks", NAMELESS.values(), ids=NAMELESS.keys())
def test_calls_without_ids_stay_apart_and_get_some(chunks: list[dict[str, Any]]) -> None:
    calls = built(*chunks).calls
    assert [(call.id, call.arguments) for call in calls] == [("call_3_0", READ), ("call_3_1", READ)]


def test_a_name_that_is_said_with_every_piece_is_one_call() -> None:
    chunks = [delta(piece(part, index=0, name="read")) for part in ("", READ[:5], READ[5:])]
    assert [(call.name, call.arguments) for call in built(*chunks).calls] == [("read", READ)]


def test_a_thought_signature_goes_back_with_its_call() -> None:
    extra = {"google": {"thought_signature": "c2ln"}}
    answer = built(
        delta(piece(READ, id="r", name="read", extra_content=extra)), delta(piece(GREP, id="g", name="grep"))
    )
    first, second = answer.message()["tool_calls"]
    assert (first["extra_content"], "extra_content" in second) == (extra, False)


def test_a_signature_that_comes_behind_its_call_goes_back_with_it() -> None:
    extra = {"google": {"thought_signature": "c2ln"}}
    answer = built(delta(piece(READ, id="r", name="read")), delta(piece(extra_content=extra)))
    assert [call["extra_content"] for call in answer.message()["tool_calls"]] == [extra]


def test_a_signature_of_the_message_goes_back_with_the_message() -> None:
    extra = {"google": {"thought_signature": "c2ln"}}
    answer = built(delta(content="Hi"), delta(extra_content=extra))
    assert answer.message() == {"role": "assistant", "content": "Hi", "extra_content": extra}


def test_tokens_of_thinking_that_are_only_in_the_total_are_output() -> None:
    answer = built({"choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 115}})
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (10, 105)


@pytest.mark.parametrize(("chunks", "whole"), [([], False), ([delta(content="x")], True), ([delta()], False)])
def test_done_makes_an_answer_whole_unless_it_says_nothing(chunks: list[dict[str, Any]], whole: bool) -> None:
    builder = AnswerBuilder(1)
    for chunk in chunks:
        builder.add(chunk)
    builder.end()
    assert builder.is_complete is whole
