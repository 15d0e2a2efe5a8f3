"""What a call used and what that costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import structlog
from genai_prices import Usage as PricedUsage
from genai_prices import calc_price, extract_usage

log = structlog.get_logger(__name__)

SIX_PLACES = Decimal("0.000001")
MOST_TOKENS = 2**31 - 1
"""What a column of the bill holds."""
_IN_TABLE = {
    "openai": "openai", "anthropic": "anthropic", "google": "google", "openrouter": "openrouter",
    "mistral": "mistral", "groq": "groq", "deepseek": "deepseek", "xai": "x-ai",
}  # fmt: skip
"""The price table's names. No other provider has its prices, even if its name looks like one of them."""
_SHAPES = (("openai", "chat"), ("anthropic", "default"))
"""The shapes of a usage that nobody describes otherwise."""
_MAIN = frozenset({"input_tokens", "output_tokens", "cache_read_tokens"})


@dataclass(frozen=True)
class Usage:
    """Tokens of one call: `cached` is the part of `input` that the provider had kept, thinking is part of `output`."""

    input: int
    output: int
    cached: int = 0
    parts: tuple[tuple[str, int], ...] = ()
    """Other parts of both that have a price of their own, by the price table's names: cache writes, audio."""


def usage_of(chunk: Mapping[str, Any], provider: str = "") -> Usage | None:
    """The usage that a chunk or an answer of a provider states, or None when it states none that can be."""
    stated = chunk.get("usage")
    if not isinstance(stated, Mapping):
        return None
    own = _IN_TABLE.get(provider)
    shapes = ((own, "chat"), (own, "default"), *_SHAPES) if own else _SHAPES
    for name, flavor in shapes:
        if (found := _extracted({"usage": stated}, name, flavor)) is not None:
            return _checked(found, stated)
    log.warning("usage_not_understood", provider=provider, stated=sorted(map(str, stated))[:20])
    return None


def cost_usd(provider: str, model: str, usage: Usage) -> Decimal | None:
    """The list price in US dollars, 6 places, by the price table that ships with `genai-prices`; None when unknown."""
    if provider == "scripted":
        return Decimal(0)
    tokens = {"input_tokens": usage.input, "output_tokens": usage.output, "cache_read_tokens": usage.cached}
    try:
        price = calc_price(PricedUsage(**tokens, **dict(usage.parts)), model, provider_id=_IN_TABLE[provider])
    except (LookupError, ValueError) as exc:
        log.info("price_unknown", provider=provider, model=model, error=str(exc)[:200])
        return None
    return Decimal(price.total_price).quantize(SIX_PLACES)


def has_price(provider: str, model: str) -> bool:
    """Whether the price table knows the model."""
    return cost_usd(provider, model, Usage(1, 1)) is not None


def _extracted(data: Mapping[str, Any], provider: str, flavor: str) -> dict[str, Any] | None:
    try:
        found = extract_usage(data, provider_id=provider, api_flavor=flavor)
    except (LookupError, ValueError):
        return None
    return {name: value for name, value in vars(found.usage).items() if value is not None}


def _checked(found: dict[str, Any], stated: Mapping[str, Any]) -> Usage | None:
    """The numbers as a usage; None when one of them cannot be a number of tokens.

    A total decides how much was written, where one is stated: some leave thinking out of the completion and count it
    in the total only, some state it apart although the completion holds it.
    """
    total, completion = stated.get("total_tokens") or 0, stated.get("completion_tokens") or 0
    values = [*found.values(), total, completion]
    if not all(type(value) is int and 0 <= value <= MOST_TOKENS for value in values):
        log.warning("usage_not_understood", stated=[str(value)[:40] for value in values])
        return None
    read, written = found.get("input_tokens", 0), found.get("output_tokens", 0)
    cached = min(found.get("cache_read_tokens", 0), read)
    parts = tuple(sorted((name, count) for name, count in found.items() if name not in _MAIN and count))
    return Usage(read, max(completion, total - read) if total else written, cached, parts)
