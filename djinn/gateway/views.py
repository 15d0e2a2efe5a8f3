"""What a container may ask for."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import structlog
from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, HttpResponse, HttpResponseBase, JsonResponse, StreamingHttpResponse
from django.views.decorators.csrf import csrf_exempt

from djinn.core.errors import UserError
from djinn.executions.models import Execution
from djinn.gateway.calls import context_of, metered, whole_answer
from djinn.gateway.door import execution_of, refusal
from djinn.gateway.failures import error_of, provider_refusal
from djinn.gateway.reading import json_of
from djinn.gateway.requests import chat_request
from djinn.providers.base import Body, ProviderError, refused
from djinn.providers.catalogue import find_provider, parse_model
from djinn.providers.faults import Fault

log = structlog.get_logger(__name__)

REFUSED = "authentication_error"


async def not_here(request: HttpRequest, *args: object, **kwargs: object) -> JsonResponse:
    """Any other path."""
    return refusal(404, "The gateway has no such endpoint.", kind="invalid_request_error")


async def healthz(request: HttpRequest) -> HttpResponse:
    """The gateway answers."""
    return HttpResponse("ok")


async def models(request: HttpRequest) -> JsonResponse:
    """The one model that the execution may use."""
    execution = await execution_of(request)
    if execution is None:
        return refusal(401, "This token opens nothing.", kind=REFUSED)
    return JsonResponse(
        {"object": "list", "data": [{"id": execution.model, "object": "model"}] if execution.model else []}
    )


@csrf_exempt
async def chat_completions(request: HttpRequest) -> HttpResponseBase:
    """OpenAI's `POST /v1/chat/completions`, streamed or whole, for the model that the execution was given."""
    if request.method != "POST":
        return refusal(405, "Use POST.", kind="invalid_request_error")
    execution = await execution_of(request)
    if execution is None:
        return refusal(401, "This token opens nothing.", kind=REFUSED)
    try:
        body = chat_request(await json_of(request))
    except RequestDataTooBig:
        return refusal(413, "The request is too large.", kind="invalid_request_error")
    except UserError as exc:
        return refusal(400, exc.message, kind="invalid_request_error")
    if body["model"] != execution.model:
        return refusal(403, f"This execution may use {execution.model or 'no model'} only.", kind="permission_error")
    return await _answer(execution, body)


async def _answer(execution: Execution, body: Body) -> HttpResponseBase:
    is_streamed = bool(body.get("stream"))
    try:
        name = parse_model(execution.model)
        chunks = metered(find_provider(name.provider), name, body, context_of(execution))
        if not is_streamed:
            return JsonResponse(whole_answer([chunk async for chunk in chunks]))
        first = await anext(chunks, None)
    except ProviderError as exc:
        log.warning("provider_refused", execution=execution.pk, fault=exc.fault, status=exc.status, error=str(exc))
        return provider_refusal(exc)
    except UserError as exc:
        return provider_refusal(refused(exc.message, fault=Fault.NO_KEY))
    return StreamingHttpResponse(_events(first, chunks), content_type="text/event-stream")


async def _events(first: Body | None, chunks: Any) -> AsyncIterator[bytes]:
    """The chunks as server-sent events; a failure behind the first one is an event too, since the status is sent."""
    async with aclosing(chunks):
        try:
            if first is not None:
                yield _event(first)
            async for chunk in chunks:
                yield _event(chunk)
        except ProviderError as exc:
            log.warning("provider_broke_off", fault=exc.fault, error=str(exc))
            yield _event({"error": error_of(exc)})
            return
        yield b"data: [DONE]\n\n"


def _event(value: Body) -> bytes:
    """ASCII with escapes: a character that the provider cut in two, half in each of two chunks, survives the way."""
    return b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"
