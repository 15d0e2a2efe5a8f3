"""Usage as providers really state it."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from djinn.providers.usage import Usage, cost_usd, usage_of

OPENAI = {
    "prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150,
    "prompt_tokens_details": {"cached_tokens": 20, "audio_tokens": 0},
    "completion_tokens_details": {
        "reasoning_tokens": 30, "audio_tokens": 0, "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0,
    },
}  # fmt: skip
GOOGLE = {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 450}
XAI = {
    "prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 450, "num_sources_used": 0,
    "prompt_tokens_details": {"text_tokens": 100, "audio_tokens": 0, "image_tokens": 0, "cached_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 300, "audio_tokens": 0},
}  # fmt: skip
XAI_INCLUDED = {**XAI, "completion_tokens": 350}
DEEPSEEK = {
    "prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150, "prompt_cache_hit_tokens": 64,
    "prompt_cache_miss_tokens": 36, "prompt_tokens_details": {"cached_tokens": 64},
    "completion_tokens_details": {"reasoning_tokens": 30},
}  # fmt: skip
ANTHROPIC = {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150}
ANTHROPIC_NATIVE = {
    "input_tokens": 10, "output_tokens": 50, "cache_creation_input_tokens": 20, "cache_read_input_tokens": 70,
}  # fmt: skip
THOUGHT = ("output_reasoning_tokens", 30)
SHAPES: list[tuple[str, dict[str, Any], Usage]] = [
    ("openai", OPENAI, Usage(100, 50, 20, (THOUGHT,))),
    ("google", GOOGLE, Usage(100, 350)),
    ("xai", XAI, Usage(100, 350, 4, (("output_reasoning_tokens", 300),))),
    ("xai", XAI_INCLUDED, Usage(100, 350, 4, (("output_reasoning_tokens", 300),))),
    ("deepseek", DEEPSEEK, Usage(100, 50, 64, (THOUGHT,))),
    ("anthropic", ANTHROPIC, Usage(100, 50)),
    ("anthropic", ANTHROPIC_NATIVE, Usage(100, 50, 70, (("cache_write_tokens", 20),))),
    ("in-the-house", OPENAI, Usage(100, 50, 20, (THOUGHT,))),
    ("in-the-house", GOOGLE, Usage(100, 350)),
    ("in-the-house", ANTHROPIC_NATIVE, Usage(100, 50, 70, (("cache_write_tokens", 20),))),
]


@pytest.mark.parametrize(("provider", "stated", "usage"), SHAPES)
def test_the_usage_holds_all_that_is_paid_for(provider: str, stated: dict[str, Any], usage: Usage) -> None:
    assert usage_of({"usage": stated}, provider) == usage


def test_thinking_that_is_counted_apart_costs_as_output() -> None:
    apart, none = (usage_of({"usage": {**GOOGLE, "total_tokens": total}}, "google") for total in (450, 150))
    assert apart is not None
    assert none is not None
    costs = [cost_usd("google", "gemini-2.5-pro", usage) for usage in (apart, none)]
    assert costs == [Decimal("0.003625"), Decimal("0.000625")]


def test_writing_a_cache_costs_more_than_reading_input() -> None:
    written, plain = Usage(1_000_000, 0, 0, (("cache_write_tokens", 1_000_000),)), Usage(1_000_000, 0)
    costs = [cost_usd("anthropic", "claude-opus-4-5", usage) for usage in (written, plain)]
    assert costs == [Decimal("6.25"), Decimal("5")]
