"""The bound on request bodies, asked as a server would ask it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from djinn.core.body import bounded


async def _greedy(scope: Any, receive: Any, send: Any) -> None:
    """Reads its body to the end, as Django does, and tells how many bytes it got."""
    total = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        total += len(message["body"])
        if not message.get("more_body"):
            break
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(total).encode()})


def _ask(chunks: list[bytes], stated: bytes | None) -> list[dict[str, Any]]:
    waiting = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]
    waiting.append({"type": "http.request", "body": b"", "more_body": False})
    sent: list[dict[str, Any]] = []

    async def receive() -> Any:
        return waiting.pop(0)

    async def send(message: Any) -> None:
        sent.append(message)

    headers = [] if stated is None else [(b"content-length", stated)]
    asyncio.run(bounded(_greedy, max_bytes=10)({"type": "http", "headers": headers}, receive, send))
    return sent


@pytest.mark.parametrize("stated", [b"10", None, b"odd"])
def test_a_body_within_the_bound_arrives_whole(stated: bytes | None) -> None:
    assert _ask([b"12345", b"67890"], stated)[-1]["body"] == b"10"


def test_a_body_that_says_it_is_too_large_is_refused_unread() -> None:
    start, body = _ask([b"x" * 11], b"11")
    assert (start["status"], b"too_large" in body["body"]) == (413, True)


def test_a_body_that_is_larger_than_it_says_is_cut_off() -> None:
    assert _ask([b"x" * 8, b"x" * 8], b"8") == []
