"""What a call used and what that costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import structlog
from genai_prices import Usage as PricedUsage
from genai_prices import calc_price

log = structlog.get_logger(__name__)

SIX_PLACES = Decimal("0.000001")
MOST_TOKENS = 2**31 - 1
"""What a column of the bill holds."""


@dataclass(frozen=True)
class Usage:
    """Tokens of one call; `cached` is the part of `input` that the provider had kept."""

    input: int
    output: int
    cached: int = 0


def usage_of(chunk: Mapping[str, Any]) -> Usage | None:
    """The usage that a chunk or an answer states, in OpenAI's shape, or None when it states none that can be."""
    stated = chunk.get("usage")
    if not isinstance(stated, Mapping):
        return None
    details = stated.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, Mapping) else 0
    tokens = [stated.get("prompt_tokens") or 0, stated.get("completion_tokens") or 0, cached or 0]
    if not all(isinstance(count, int) and 0 <= count <= MOST_TOKENS for count in tokens):
        log.warning("usage_not_understood", stated=tokens)
        return None
    return Usage(input=tokens[0], output=tokens[1], cached=min(tokens[2], tokens[0]))


def cost_usd(provider: str, model: str, usage: Usage) -> Decimal | None:
    """The list price in US dollars, 6 places, by the price table that ships with `genai-prices`; None when unknown."""
    if provider == "scripted":
        return Decimal(0)
    tokens = PricedUsage(input_tokens=usage.input, output_tokens=usage.output, cache_read_tokens=usage.cached)
    try:
        price = calc_price(tokens, model, provider_id=provider)
    except LookupError:
        log.info("price_unknown", provider=provider, model=model)
        return None
    return Decimal(price.total_price).quantize(SIX_PLACES)
