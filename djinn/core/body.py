"""A bound on request bodies before anything reads them: Django writes a whole body to disk before any view is asked."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

Scope = dict[str, Any]
Message = Mapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

RETRY_AFTER = (b"retry-after", b"5")


def bounded(application: Application, *, max_bytes: int) -> Application:
    """The ASGI application behind a bound: a body that says it is larger gets 413, one that lies is cut off."""

    async def limited(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await application(scope, receive, send)
        elif (stated_length(scope) or 0) > max_bytes:
            await refuse(send, 413, "too_large", f"The body is larger than {max_bytes} bytes.")
        else:
            await application(scope, _counted(receive, max_bytes), send)

    return limited


def stated_length(scope: Scope) -> int | None:
    """How long a request says that its body is: 0 when it says nothing of a body, None when it does not tell."""
    headers = dict(scope["headers"])
    text = headers.get(b"content-length")
    if text is None:
        return None if b"transfer-encoding" in headers else 0
    return int(text) if text.isdigit() and len(text) < 19 else None


async def refuse(send: Send, status: int, code: str, message: str) -> None:
    """An answer in the envelope of errors, without the application."""
    body = json.dumps({"error": {"code": code, "message": message, "details": {}}}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status in {429, 503}:
        headers.append(RETRY_AFTER)
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _counted(receive: Receive, max_bytes: int) -> Receive:
    total = 0

    async def counted() -> Message:
        nonlocal total
        message = await receive()
        total += len(message.get("body", b""))
        return {"type": "http.disconnect"} if total > max_bytes else message

    return counted
