"""The bill: a row before a call is sent, completed when it ended."""

from __future__ import annotations

from djinn.providers.base import CallContext
from djinn.providers.catalogue import ModelName
from djinn.providers.models import ModelCall
from djinn.providers.usage import Usage, cost_usd


def open_call(*, name: ModelName, context: CallContext) -> ModelCall:
    """The row of a call that is about to be sent."""
    return ModelCall.objects.create(
        execution=context.execution, provider=name.provider, model=name.model, agent=context.agent
    )


def close_call(
    *,
    call: ModelCall,
    status: ModelCall.Status,
    usage: Usage | None,
    seconds: float,
    first_token_seconds: float | None,
    error: str = "",
) -> ModelCall:
    """Complete the row. Without a usage, tokens and cost stay NULL: unknown is not nothing."""
    call.status, call.error = status, error[:2000]
    call.seconds, call.first_token_seconds = seconds, first_token_seconds
    if usage is not None:
        call.input_tokens, call.output_tokens, call.cached_tokens = usage.input, usage.output, usage.cached
        call.cost_usd = cost_usd(call.provider, call.model, usage)
    call.save(
        update_fields=[
            "status", "error", "seconds", "first_token_seconds",
            "input_tokens", "output_tokens", "cached_tokens", "cost_usd",
        ]
    )  # fmt: skip
    return call
