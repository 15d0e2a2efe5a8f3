"""Whether and when a failed model call is made again: a pure decision from status and attempt."""

from __future__ import annotations

import time
from dataclasses import dataclass

MAX_WAIT_SECONDS = 3600.0
_FIRST_PAUSE_SECONDS = 0.25
_LONGEST_PAUSE_SECONDS = 10.0
_DOUBTFUL_TRIES = 5

# The gateway or the provider says "not now": asked again until the deadline.
_PASSING = frozenset({408, 425, 429, 502, 503, 504, 529})
_REASON_OF_STATUS = {401: "rejected", 403: "rejected", 402: "budget"}


@dataclass(frozen=True)
class Failure:
    """One failed attempt. `status` is None when the transport failed; `retry_after` is the header's text."""

    message: str
    status: int | None = None
    retry_after: str = ""
    is_doubtful: bool = False


@dataclass(frozen=True)
class Again:
    """Ask again after a pause."""

    seconds: float


@dataclass(frozen=True)
class GiveUp:
    """Do not ask again; the execution fails for this reason."""

    reason: str


def decide(failure: Failure, attempt: int, luck: float) -> Again | GiveUp:
    """What follows the given attempt (counted from 1, consecutive failures only). `luck` in 0..1 spreads the pauses.

    Transport failures and passing refusals are tried again without end, since the deadline ends them; a server error
    or a nonsensical answer five times in a row is the model's failure.
    """
    status = failure.status
    is_endless = status in _PASSING or (status is None and not failure.is_doubtful)
    is_doubtful = failure.is_doubtful or (status is not None and status >= 500)
    if is_endless or (is_doubtful and attempt < _DOUBTFUL_TRIES):
        asked = retry_after_seconds(failure.retry_after, time.time())
        return Again(asked if asked is not None else _pause(attempt, luck))
    return GiveUp(_REASON_OF_STATUS.get(status or 0, "model"))


def retry_after_seconds(text: str, now: float) -> float | None:
    """The header Retry-After (RFC 9110: seconds or a date) as seconds from `now`, bounded; None when it is none."""
    try:
        seconds = float(text)
    except ValueError:
        from email.utils import parsedate_to_datetime

        try:
            seconds = parsedate_to_datetime(text).timestamp() - now
        except (ValueError, TypeError, IndexError, OverflowError):
            return None
    if seconds != seconds:
        return None
    return min(max(seconds, 0.0), MAX_WAIT_SECONDS)


def _pause(attempt: int, luck: float) -> float:
    longest = min(_LONGEST_PAUSE_SECONDS, _FIRST_PAUSE_SECONDS * 2.0 ** min(attempt - 1, 10))
    return longest * (0.5 + luck / 2)
