"""One model call: metered from before it is sent until its last chunk, its failure, or its container's departure."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

import structlog
from channels.db import database_sync_to_async

from djinn.core.faults import fault
from djinn.executions.models import Execution
from djinn.providers.base import Body, CallContext, Provider, ProviderError, ProviderRefused, refused
from djinn.providers.bounded import Unbounded, with_output
from djinn.providers.budgets import BudgetExceeded, Held
from djinn.providers.catalogue import ModelName, label_of
from djinn.providers.faults import Fault, Place, Told, told
from djinn.providers.models import ModelCall
from djinn.providers.services import CallEnd, TooManyDoubts, close_call, open_call
from djinn.providers.usage import Usage, usage_of
from runtime_image.djinn_runtime.answer import AnswerBuilder, BadAnswer, ModelError

log = structlog.get_logger(__name__)

NEVER_SENT = CallEnd(ModelCall.Status.ABANDONED, error="the container left before the call was sent", is_free=True)
_unfinished: set[asyncio.Task[Any]] = set()
"""What has to come to its end although nobody waits for it; a loop alone would let it be collected."""


def context_of(execution: Execution) -> CallContext:
    """Who asks."""
    return CallContext(
        execution.pk, execution.agent, execution.step, execution.visit, tuple(map(str, execution.budgets))
    )


async def metered(provider: Provider, name: ModelName, body: Body, context: CallContext) -> AsyncGenerator[Body]:
    """The provider's chunks; the call's row is completed however the iteration ends. Raises `ProviderError`."""
    fault("gateway.before_open_call")
    call, held = await _opened(name, body, context)
    if held.output_tokens is not None:
        body = with_output(body, held.output_tokens)
    fault("gateway.after_open_call")
    answer = _Answer(name)
    status, error, kind, is_free = ModelCall.Status.ABANDONED, "", "", False
    try:
        async with aclosing(provider.chat(name.model, body, context)) as chunks:
            async for chunk in chunks:
                answer.take(chunk)
                yield chunk
        answer.check_whole()
        status = ModelCall.Status.ANSWERED
    except ProviderError as exc:
        status, error, kind, is_free = ModelCall.Status.FAILED, str(exc), exc.fault, isinstance(exc, ProviderRefused)
        raise
    finally:
        seconds = time.monotonic() - answer.began
        is_partial = not answer.builder.is_complete
        await _to_its_end(
            _close(call, CallEnd(status, answer.usage, is_partial, seconds, answer.first_seconds, error, kind, is_free))
        )


async def _opened(name: ModelName, body: Body, context: CallContext) -> tuple[ModelCall, Held]:
    """The call's row and what is held back for it, or neither: also when the container leaves in this very moment."""
    opening = asyncio.ensure_future(database_sync_to_async(open_call)(name=name, context=context, body=body))
    try:
        return await asyncio.shield(opening)
    except asyncio.CancelledError:
        await _to_its_end(_undo(opening))
        raise
    except BudgetExceeded as exc:
        raise refused(str(exc), fault=Fault.BUDGET, status=402) from exc
    except Unbounded as exc:
        raise refused(str(exc)) from exc
    except TooManyDoubts as exc:
        raise ProviderRefused(Told(Fault.GAVE_UP, "too many answers of no use", str(exc))) from exc


async def _undo(opening: asyncio.Future[tuple[ModelCall, Held]]) -> None:
    """Give back what a call that nobody waits for any more has held; one that was refused has held nothing."""
    try:
        call, _ = await opening
    except (BudgetExceeded, Unbounded, TooManyDoubts):
        return
    await _close(call, NEVER_SENT)


async def _to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Wait for the work, which goes on when the waiting is cancelled."""
    task = asyncio.ensure_future(work)
    _unfinished.add(task)
    task.add_done_callback(_unfinished.discard)
    await asyncio.shield(task)


async def _close(call: ModelCall, end: CallEnd) -> None:
    fault("gateway.before_close_call")
    await database_sync_to_async(close_call)(call, end)
    log.info(
        "model_call_ended",
        call=call.pk,
        execution=call.execution,
        status=str(end.status),
        fault=end.fault,
        seconds=round(end.seconds, 3),
    )


@dataclass
class _Answer:
    """What has come of an answer."""

    name: ModelName
    builder: AnswerBuilder = field(default_factory=lambda: AnswerBuilder(0))
    began: float = field(default_factory=time.monotonic)
    first_seconds: float | None = None
    usage: Usage | None = None

    def take(self, chunk: Body) -> None:
        """Note a chunk; raises `ProviderError` for one that no answer can hold."""
        self.first_seconds = self.first_seconds or time.monotonic() - self.began
        self.usage = usage_of(chunk, self.name.provider) or self.usage
        try:
            self.builder.add(chunk)
        except (BadAnswer, ModelError, RecursionError) as exc:
            raise self._error(Fault.GARBLED) from exc

    def check_whole(self) -> None:
        """Raise `ProviderError` unless the answer has come to its end."""
        self.builder.end()
        if not self.builder.is_complete:
            raise self._error(Fault.BROKE_OFF)

    def _error(self, kind: Fault) -> ProviderError:
        return ProviderError(told(kind, Place(label_of(self.name.provider)), model=self.name.model))


def whole_answer(chunks: list[Body]) -> Body:
    """The chunks of one answer put together into a `chat.completion`."""
    builder = AnswerBuilder(0)
    for chunk in chunks:
        builder.add(chunk)
    builder.end()
    answer = builder.answer()
    first = chunks[0] if chunks else {}
    usage = next((chunk["usage"] for chunk in reversed(chunks) if chunk.get("usage")), None)
    return {
        "id": first.get("id"),
        "object": "chat.completion",
        "created": first.get("created"),
        "model": first.get("model"),
        "choices": [{"index": 0, "message": answer.message(), "finish_reason": answer.finish_reason}],
        "usage": usage,
    }
