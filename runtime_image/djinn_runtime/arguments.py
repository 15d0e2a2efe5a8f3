"""The arguments of a tool call: JSON that a model wrote, and that nothing after here should stumble over."""

from __future__ import annotations

import json
from typing import Any

from .protocol import clean

MAX_DEPTH = 64


def parse_arguments(text: str) -> Any:
    """The JSON value; raises ValueError for what is none, nests too deeply, or holds NUL or half a character."""
    try:
        value = json.loads(text or "{}", parse_constant=_refuse_constant, parse_float=_finite)
    except RecursionError as exc:
        raise ValueError("nested too deeply") from exc
    if _is_deeper(value, MAX_DEPTH):
        raise ValueError(f"nested deeper than {MAX_DEPTH} levels")
    if clean(value) != value:
        raise ValueError("a text holds a NUL character or half of a surrogate pair")
    return value


def _is_deeper(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit):
        parents = [item for item in level if isinstance(item, (dict, list))]
        level = [child for item in parents for child in (item.values() if isinstance(item, dict) else item)]
        if not level:
            return False
    return True


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"the number {text[:40]} is too large")
    return value


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")
