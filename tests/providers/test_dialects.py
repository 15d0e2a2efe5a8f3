"""What each model takes."""

from __future__ import annotations

from typing import Any

import pytest

from djinn.providers.dialects import adapted

ASKED = {"max_tokens": 900, "temperature": 0.2, "top_p": 0.9, "stop": ["x"], "stream_options": {}}
SENT: list[tuple[str, str, set[str], set[str]]] = [
    ("openai", "gpt-5", {"max_completion_tokens", "stop"}, {"max_tokens", "temperature", "top_p"}),
    ("openai", "gpt-5.4-mini", {"max_completion_tokens"}, {"max_tokens", "temperature"}),
    ("openai", "o3-mini", {"max_completion_tokens"}, {"max_tokens", "temperature"}),
    ("openai", "gpt-4o", {"max_completion_tokens", "temperature", "top_p"}, {"max_tokens"}),
    ("openai", "gpt-5-chat-latest", {"max_completion_tokens", "temperature"}, {"max_tokens"}),
    ("azure", "gpt-5", {"max_completion_tokens"}, {"max_tokens", "temperature"}),
    ("local", "llama3", {"max_tokens", "temperature", "top_p"}, {"max_completion_tokens"}),
    ("openrouter", "openai/gpt-5", {"max_tokens", "temperature"}, {"max_completion_tokens"}),
    ("mistral", "mistral-large-latest", {"max_tokens", "temperature"}, {"stream_options"}),
    ("anthropic", "claude-opus-4-8", {"max_tokens", "stop"}, {"temperature", "top_p"}),
    ("anthropic", "claude-fable-5", {"max_tokens"}, {"temperature", "top_p"}),
    ("anthropic", "claude-sonnet-4-5", {"max_tokens", "temperature"}, {"top_p"}),
    ("anthropic", "claude-3-5-haiku", {"max_tokens", "temperature", "top_p"}, set()),
    ("xai", "grok-4.3", {"max_tokens", "temperature"}, {"stop"}),
    ("xai", "grok-4-1-fast-non-reasoning", {"max_tokens", "stop"}, set()),
    ("deepseek", "deepseek-reasoner", {"max_tokens"}, {"temperature"}),
    ("google", "gemini-2.5-pro", set(ASKED), set()),
]


@pytest.mark.parametrize(("provider", "model", "has", "lacks"), SENT)
def test_a_request_holds_what_its_model_takes(provider: str, model: str, has: set[str], lacks: set[str]) -> None:
    sent = adapted(provider, model, ASKED)
    assert (has - set(sent), lacks & set(sent)) == (set(), set())


@pytest.mark.parametrize(
    ("provider", "body", "sent"),
    [
        ("openai", {"max_tokens": 900, "max_completion_tokens": 300}, {"max_completion_tokens": 300}),
        ("mistral", {"max_completion_tokens": 300}, {"max_tokens": 300}),
        ("openai", {"max_tokens": None}, {"max_tokens": None}),
        ("local", {"max_tokens": 900, "max_completion_tokens": 300}, {"max_tokens": 900, "max_completion_tokens": 300}),
    ],
)
def test_the_least_bound_of_an_answer_is_sent_by_the_name_that_is_known(
    provider: str, body: dict[str, Any], sent: dict[str, Any]
) -> None:
    assert adapted(provider, "m", body) == sent
