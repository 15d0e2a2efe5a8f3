"""Model calls that fail and are made again: journal records `log` with `retry`, null once the call went through."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from djinn.events.log import LoggedEvent, newest_with

KEY = "retry"
LOOK_BACK = 100
"""How many of an execution's last events are looked through: hardly anything else happens meanwhile."""
MOST_CHARACTERS = 300


@dataclass(frozen=True)
class Retry:
    """A failed attempt of a model call, counted from 1, and the pause before the next one."""

    attempt: int | None
    failure: str
    next_seconds: float | None

    @property
    def again(self) -> str:
        """When the next attempt is made."""
        return "retrying" if self.next_seconds is None else f"retrying in {max(1, round(self.next_seconds))} s"

    def __str__(self) -> str:
        count = "" if self.attempt is None else f" (attempt {self.attempt})"
        return f"Call failed: {self.failure}; {self.again}{count}"


def retry_of(data: Mapping[str, Any]) -> Retry | None:
    """What a record out of a container says; None when the call went through, or when it says nothing of the kind."""
    value = data.get(KEY)
    if not isinstance(value, Mapping):
        return None
    attempt, seconds = value.get("attempt"), value.get("next_seconds")
    is_wait = isinstance(seconds, (int, float)) and not isinstance(seconds, bool) and 0 <= seconds < 1e6
    return Retry(
        attempt=attempt if type(attempt) is int and 0 < attempt < 10**6 else None,
        failure=" ".join(str(value.get("failure") or "no reason given").split())[:MOST_CHARACTERS],
        next_seconds=float(str(seconds)) if is_wait else None,
    )


def retries_of(executions: list[int]) -> list[tuple[LoggedEvent, Retry]]:
    """The failed call of each of these executions that waits to be made again, in one query."""
    found = [(event, retry_of(event.data)) for event in newest_with(executions, "log", KEY, look_back=LOOK_BACK)]
    return [(event, retry) for event, retry in found if retry is not None]
