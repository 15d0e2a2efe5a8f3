"""Bodies of requests as JSON, read where they keep nobody waiting.

A JSON parser in C holds Python's one lock until it is done, in whatever thread. So what is large is looked at first,
with operations that take some milliseconds each: a long text is read in no time, a million small values are not, and no
request needs them.
"""

from __future__ import annotations

import asyncio
import json
import weakref
from concurrent.futures import ThreadPoolExecutor
from math import isfinite
from typing import Any

from django.conf import settings
from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest

from djinn.core.errors import UserError
from djinn.core.serving.protocol import SHARED

SMALL_BYTES = 32 * 1024
MOST_VALUES = 100_000
"""Of one body: items, members, and lists and objects together."""
LONGEST_NUMBER = 400
"""Digits. A tool's schema may state the largest float that there is; nothing has longer numbers."""
_readers = ThreadPoolExecutor(max_workers=2, thread_name_prefix="read")
_turns: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
"""One body of a container is read at a time."""


async def json_of(request: HttpRequest, *, most_bytes: int | None = None, is_strict: bool = True) -> Any:
    """The body as JSON. Raises `UserError` when it is none, `RequestDataTooBig` when it is larger than it may be.

    Unless `is_strict`, NaN and the infinities are numbers, for a caller who tells better what is wrong with them.
    """
    most = most_bytes or settings.DATA_UPLOAD_MAX_MEMORY_SIZE
    if int(request.META.get("CONTENT_LENGTH") or SMALL_BYTES + 1) <= SMALL_BYTES:
        return _read(request, most, is_strict)
    turn = _turns.setdefault(peer_of(request), asyncio.Lock())
    async with turn:
        return await asyncio.get_running_loop().run_in_executor(_readers, _read, request, most, is_strict)


def peer_of(request: HttpRequest) -> str:
    """Through which door the request came."""
    name: str = getattr(request, "scope", {}).get("state", {}).get("peer", SHARED)
    return name


def _read(request: HttpRequest, most_bytes: int, is_strict: bool) -> Any:
    if len(request.body) > most_bytes:
        raise RequestDataTooBig
    try:
        text = request.body.decode()
        if len(text) > SMALL_BYTES:
            _check_values(text)
        if not is_strict:
            return json.loads(text)
        return json.loads(text, parse_int=_whole, parse_float=_number, parse_constant=_no_number)
    except (ValueError, RecursionError) as exc:
        raise UserError(f"The body is not JSON: {exc}") from exc


def _check_values(text: str) -> None:
    """Raise for a text that holds more values than anybody needs, without parsing it.

    Outside of strings a backslash is no JSON: a text that hides its values that way is refused where it begins.
    """
    if "\\" in text:
        text = text.replace("\\\\", "").replace('\\"', "")
    if text.count('"') <= 4 * MOST_VALUES:
        outside = "".join(text.split('"')[::2])
        if sum(outside.count(mark) for mark in ",[{") <= MOST_VALUES:
            return
    raise UserError(f"The body holds more than {MOST_VALUES} values.")


def _whole(text: str) -> int:
    if len(text) > LONGEST_NUMBER:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def _number(text: str) -> float:
    value = float(text)
    if len(text) > LONGEST_NUMBER or not isfinite(value):
        raise ValueError(f"{text[:40]} is no number that can be used")
    return value


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no JSON")
