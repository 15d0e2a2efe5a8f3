"""Under a budget only requests are sent whose cost has a bound."""

from __future__ import annotations

from typing import Any

import pytest

from djinn.providers.bounded import Unbounded, check_bounded, wanted_output, with_output

TEXT = {"role": "user", "content": "Hi"}


def part(**keys: Any) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [{"type": "text", "text": "Look:"}, keys]}]}


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ({"messages": [TEXT], "n": 2}, "n must be 1"),
        ({"messages": [TEXT], "n": "2"}, "n must be 1"),
        ({"messages": [TEXT], "best_of": 5}, "best_of"),
        ({"messages": [TEXT], "service_tier": "priority"}, "service_tier"),
        ({"messages": [TEXT], "web_search_options": {}}, "web_search_options"),
        ({"messages": [TEXT], "prediction": {"type": "content", "content": "x"}}, "prediction"),
        ({"messages": [TEXT], "tools": [{"type": "web_search"}]}, "type function only"),
        ({"messages": [TEXT], "tools": {"type": "function"}}, "type function only"),
        ({"messages": [{"role": "assistant", "audio": {"id": "a1"}}]}, "audio"),
        ({"messages": [{"role": "user", "content": {"type": "text"}}]}, "text only"),
        (part(type="image_url", image_url={"url": "https://example.org/large.png"}), "text only"),
        (part(type="input_audio", input_audio={"data": "", "format": "wav"}), "text only"),
        (part(type="file", file={"file_id": "f1"}), "text only"),
        (part(type="text", text="x", cache_control={"type": "ephemeral"}), "text only"),
    ],
)
def test_what_has_no_bound_is_refused_by_name(body: dict[str, Any], word: str) -> None:
    with pytest.raises(Unbounded, match=word):
        check_bounded(body)


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [TEXT], "n": 1, "stream": True, "stream_options": {"include_usage": True}, "temperature": 0.1},
        {"messages": [TEXT, {"role": "assistant", "content": None, "tool_calls": []}], "tools": [{"type": "function"}]},
        part(type="text", text="and this"),
    ],
)
def test_what_agents_say_is_let_through(body: dict[str, Any]) -> None:
    check_bounded(body)


def test_an_answer_is_bounded_by_the_least_that_is_stated_and_by_every_key() -> None:
    body = {"max_tokens": 100_000, "max_completion_tokens": 10}
    assert wanted_output(body, 8192) == 10
    assert with_output(body, 7) == {"max_tokens": 7, "max_completion_tokens": 7}


def test_an_answer_without_a_length_gets_one() -> None:
    assert wanted_output({"max_tokens": -1}, 8192) == 8192
    assert with_output({}, 7) == {"max_tokens": 7}
