"""One model call: metered from before it is sent until its last chunk, its failure, or its container's departure."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing

import structlog
from channels.db import database_sync_to_async

from djinn.core.faults import fault
from djinn.executions.models import Execution
from djinn.providers.base import Body, CallContext, Provider, ProviderError, ProviderRefused
from djinn.providers.bounded import Unbounded, with_output
from djinn.providers.budgets import BudgetExceeded
from djinn.providers.catalogue import ModelName
from djinn.providers.models import ModelCall
from djinn.providers.services import CallEnd, close_call, open_call
from djinn.providers.usage import usage_of

log = structlog.get_logger(__name__)


def context_of(execution: Execution) -> CallContext:
    """Who asks."""
    return CallContext(
        execution.pk, execution.agent, execution.step, execution.visit, tuple(map(str, execution.budgets))
    )


async def metered(provider: Provider, name: ModelName, body: Body, context: CallContext) -> AsyncGenerator[Body]:
    """The provider's chunks; the call's row is completed however the iteration ends. Raises `ProviderError`."""
    fault("gateway.before_open_call")
    try:
        call, held = await database_sync_to_async(open_call)(name=name, context=context, body=body)
    except BudgetExceeded as exc:
        raise ProviderError(str(exc), permanent=True, status=402) from exc
    except Unbounded as exc:
        raise ProviderError(str(exc), permanent=True, status=400) from exc
    if held.output_tokens is not None:
        body = with_output(body, held.output_tokens)
    fault("gateway.after_open_call")
    began, first, usage = time.monotonic(), None, None
    status, error, is_free = ModelCall.Status.ABANDONED, "", False
    try:
        async with aclosing(provider.chat(name.model, body, context)) as chunks:
            async for chunk in chunks:
                first = first or time.monotonic() - began
                usage = usage_of(chunk) or usage
                yield chunk
        status = ModelCall.Status.ANSWERED
    except ProviderError as exc:
        status, error, is_free = ModelCall.Status.FAILED, str(exc), isinstance(exc, ProviderRefused)
        raise
    finally:
        end = CallEnd(status, usage, time.monotonic() - began, first, error, is_free)
        await asyncio.shield(_close(call, end))


async def _close(call: ModelCall, end: CallEnd) -> None:
    fault("gateway.before_close_call")
    await database_sync_to_async(close_call)(call, end)
    log.info(
        "model_call_ended",
        call=call.pk,
        execution=call.execution,
        status=str(end.status),
        seconds=round(end.seconds, 3),
    )


def whole_answer(chunks: list[Body]) -> Body:
    """The chunks of one answer put together into a `chat.completion`."""
    text, finish = "", "stop"
    calls: dict[int, Body] = {}
    for choice in (choice for chunk in chunks for choice in chunk.get("choices") or [] if choice.get("index", 0) == 0):
        delta = choice.get("delta") or {}
        text += delta.get("content") or ""
        finish = choice.get("finish_reason") or finish
        for part in delta.get("tool_calls") or []:
            _add_call(calls, part)
    message: Body = {"role": "assistant", "content": text or None}
    if calls:
        message["tool_calls"] = [calls[index] for index in sorted(calls)]
    first = chunks[0] if chunks else {}
    usage = next((chunk["usage"] for chunk in reversed(chunks) if chunk.get("usage")), None)
    return {
        "id": first.get("id"),
        "object": "chat.completion",
        "created": first.get("created"),
        "model": first.get("model"),
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": usage,
    }


def _add_call(calls: dict[int, Body], part: Body) -> None:
    call = calls.setdefault(
        part.get("index", 0), {"id": "", "type": "function", "function": {"name": "", "arguments": ""}}
    )
    call["id"] = part.get("id") or call["id"]
    function = part.get("function") or {}
    call["function"]["name"] += function.get("name") or ""
    call["function"]["arguments"] += function.get("arguments") or ""
