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


@dataclass(frozen=True)
class Usage:
    """Tokens of one call; `cached` is the part of `input` that the provider had kept."""

    input: int
    output: int
    cached: int = 0


def usage_of(chunk: Mapping[str, Any]) -> Usage | None:
    """The usage that a chunk or an answer states, in OpenAI's shape, or None when it states none."""
    stated = chunk.get("usage")
    if not isinstance(stated, Mapping):
        return None
    details = stated.get("prompt_tokens_details") or {}
    return Usage(
        input=int(stated.get("prompt_tokens") or 0),
        output=int(stated.get("completion_tokens") or 0),
        cached=int(details.get("cached_tokens") or 0),
    )


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
