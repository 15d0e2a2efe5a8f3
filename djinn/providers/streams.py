"""A provider's bytes as lines, within bounds: of a line, of all of them, and of silence."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass

import httpx2

LONGEST_LINE = 4 * 1024 * 1024
MOST_BYTES = 32 * 1024 * 1024
"""Of one answer."""
MOST_ERROR_BYTES = 16 * 1024
ERROR_SECONDS = 20.0
"""How long the text of a refusal is waited for."""


class TooMuch(Exception):
    """More than any answer needs; the text says of what."""


class Stalled(Exception):
    """Nothing came for too long; the text says of what, and for how long."""


@dataclass(frozen=True)
class Patience:
    """How long silence may last, in seconds."""

    first_seconds: float
    """Until the first byte, and between two chunks: a model may think for minutes; comments only say that it lives."""
    stall_seconds: float
    """Between two bytes, once there was one."""


async def lines(response: httpx2.Response, patience: Patience) -> AsyncGenerator[bytes]:
    """The lines of a response without their ends. Raises `TooMuch` and `Stalled`."""
    rest, total, last_data = bytearray(), 0, time.monotonic()
    async for chunk in _chunks(response, patience):
        total += len(chunk)
        if total > MOST_BYTES:
            raise TooMuch(f"an answer of over {MOST_BYTES} bytes")
        rest += chunk
        if b"\n" in chunk:
            *whole, last = bytes(rest).split(b"\n")
            rest = bytearray(last)
            for line in whole:
                _check_length(line)
                if line.startswith(b"data:"):
                    last_data = time.monotonic()
                yield line.rstrip(b"\r")
        _check_length(rest)
        if (silent := time.monotonic() - last_data) > patience.first_seconds:
            raise Stalled(f"no data for {silent:.0f} s")
    if rest:
        yield bytes(rest)


async def error_text(response: httpx2.Response) -> str:
    """The beginning of a refusal's text, as far as it comes in time."""
    text = bytearray()
    try:
        async with asyncio.timeout(ERROR_SECONDS):
            async for chunk in response.aiter_raw():
                text += chunk
                if len(text) > MOST_ERROR_BYTES:
                    break
    except (TimeoutError, httpx2.HTTPError):
        pass  # what came is enough: the status says what is wrong
    return bytes(text[:MOST_ERROR_BYTES]).decode("utf-8", "replace")


async def _chunks(response: httpx2.Response, patience: Patience) -> AsyncIterator[bytes]:
    chunks, seconds = response.aiter_raw(), patience.first_seconds
    while True:
        try:
            async with asyncio.timeout(seconds):
                chunk = await anext(chunks, None)
        except TimeoutError as exc:
            raise Stalled(f"nothing for {seconds:.0f} s") from exc
        if chunk is None:
            return
        seconds = patience.stall_seconds
        yield chunk


def _check_length(line: bytes | bytearray) -> None:
    if len(line) > LONGEST_LINE:
        raise TooMuch(f"a line of over {LONGEST_LINE} bytes")
