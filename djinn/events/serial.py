"""The JSON shape of an event, the same in pages, SSE and the command line."""

from __future__ import annotations

from typing import Any

from djinn.events.log import LoggedEvent


def event_json(event: LoggedEvent) -> dict[str, Any]:
    """`{"seq", "type", "at", "data"}`; `at` is UTC, ISO 8601."""
    return {"seq": event.seq, "type": event.type, "at": event.at.isoformat(), "data": dict(event.data)}
