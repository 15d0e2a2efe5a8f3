"""How the pages write durations, sums and counts."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from django import template

from djinn.dashboard.texts import word
from djinn.pipelines.history import named

register = template.Library()

MOST_IN_SHORT = 80
WHY = {
    "error": "",
    "cancelled": "Cancelled",
    "input": "Could not prepare inputs",
    "model": "Model call failed",
}
"""Reasons in words beside a status and a message, which say all that there is to say of an error."""


@register.filter
def duration(value: timedelta | None) -> str:
    """`0.4 s`, `12 s`, `3 min 05 s`, `2 h 07 min`; empty before the start."""
    if value is None:
        return ""
    seconds = max(value.total_seconds(), 0)
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 1:
        return f"{rest} s"
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


@register.filter
def dollars(value: Decimal | None) -> str:
    """`$1.25`, more places for small sums; `unknown` for None."""
    if value is None:
        return "unknown"
    return f"${value:,.2f}" if value >= 1 or not value else f"${value:,.4f}"


@register.filter
def whole(value: int) -> str:
    """`1,234,567`."""
    return f"{value:,}"


@register.filter
def moment(value: datetime | None) -> str:
    """`2025-11-22 14:02:11 UTC`; empty for None."""
    return f"{value:%Y-%m-%d %H:%M:%S} UTC" if value else ""


@register.filter
def clock(value: datetime) -> str:
    """`14:02:11`, in UTC."""
    return f"{value:%H:%M:%S}"


@register.filter
def iso(value: datetime) -> str:
    """ISO 8601, for machines."""
    return value.isoformat()


@register.filter
def at(values: dict[int, Any], key: int) -> Any:
    """The value of that key, None if there is none."""
    return values.get(key)


@register.filter
def step_name(row: Any) -> str:
    """The step of a step run as people read it: `TEST`, or `TEST[2]` for an item."""
    return named(row.step, row.item)


@register.filter
def why(row: Any) -> str:
    """The reason of a run or step run in words; for a run that a person cancelled, with their name."""
    if row.reason == "cancelled" and getattr(row, "cancelled_by", None) is not None:
        return f"Cancelled by {row.cancelled_by.get_username()}"
    return WHY.get(row.reason, str(row.get_reason_display()) if row.reason else "")


@register.filter
def in_short(value: Any) -> str:
    """The value in one line; an agent may have written it."""
    return word(value)[:MOST_IN_SHORT]


@register.filter
def spaced(name: str) -> str:
    """`tool_call` as `Tool call`."""
    return name.replace("_", " ").capitalize()
