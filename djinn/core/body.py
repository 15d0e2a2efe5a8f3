"""A bound on request bodies before anything reads them: Django writes a whole body to disk before any view is asked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

Scope = dict[str, Any]
Message = Mapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


def bounded(application: Application, *, max_bytes: int) -> Application:
    """The ASGI application behind a bound: a body that says it is larger gets 413, one that lies is cut off."""

    async def limited(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await application(scope, receive, send)
        elif _stated_length(scope) > max_bytes:
            await _refuse(send, max_bytes)
        else:
            await application(scope, _counted(receive, max_bytes), send)

    return limited


def _counted(receive: Receive, max_bytes: int) -> Receive:
    total = 0

    async def counted() -> Message:
        nonlocal total
        message = await receive()
        total += len(message.get("body", b""))
        return {"type": "http.disconnect"} if total > max_bytes else message

    return counted


def _stated_length(scope: Scope) -> int:
    text = dict(scope["headers"]).get(b"content-length", b"0")
    return int(text) if text.isdigit() and len(text) < 19 else 0


async def _refuse(send: Send, max_bytes: int) -> None:
    body = (
        b'{"error": {"code": "too_large", "message": "The body is larger than %d bytes.", "details": {}}}' % max_bytes
    )
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": body})
