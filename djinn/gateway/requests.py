"""A container's request, read: what does not make sense is refused before anything is done with it."""

from __future__ import annotations

import json
from math import isfinite

from djinn.core.errors import UserError
from djinn.providers.base import Body
from djinn.providers.bounded import check_numbers

LONGEST_NUMBER = 400
"""Digits. A tool's schema may state the largest float that there is; nothing has longer numbers."""


def parse_body(content: bytes) -> Body:
    """The body of a request for a chat completion; raises `UserError`."""
    try:
        body = json.loads(content, parse_int=_whole, parse_float=_number, parse_constant=_no_number)
    except (ValueError, RecursionError) as exc:
        raise UserError(f"The body is not JSON: {exc}") from exc
    if (
        not isinstance(body, dict)
        or not isinstance(body.get("model"), str)
        or not isinstance(body.get("messages"), list)
    ):
        raise UserError("The body needs a model and messages.")
    if not all(isinstance(message, dict) for message in body["messages"]):
        raise UserError("Each message must be an object.")
    check_numbers(body)
    return body


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
