"""Whether and when a failed model call is made again: a pure decision from status and attempt."""

from __future__ import annotations

import time
from dataclasses import dataclass

MAX_WAIT_SECONDS = 3600.0
DOUBTFUL_TRIES = 5
_FIRST_PAUSE_SECONDS = 0.25
_LONGEST_PAUSE_SECONDS = 10.0
_LONGEST_PAUSE_OF_PROVIDERS = 60.0

# "Not now": asked again until the deadline. Other server errors are doubtful: the work may be done, and paid for.
_PASSING = frozenset({425, 429, 503, 529})
_DOUBTFUL = frozenset({408})
_REASON_OF_STATUS = {401: "rejected", 403: "rejected", 402: "budget"}
_REASON_OF_KIND = {
    "key_refused": "rejected",
    "no_key": "rejected",
    "unknown_model": "rejected",
    "no_credit": "rejected",
}


@dataclass(frozen=True)
class Failure:
    """One failed attempt. `status` is None when the transport failed; `retry_after` is the header's text.

    The gateway states `kind` of what a provider did, whether that `is_permanent`, and `short`, a few words for a list;
    anything else is judged by its status. `is_doubtful`: an answer was begun, and perhaps paid for, but is of no use.
    """

    message: str
    status: int | None = None
    retry_after: str = ""
    is_doubtful: bool = False
    kind: str = ""
    is_permanent: bool = False
    short: str = ""

    @property
    def words(self) -> str:
        return self.short or self.message[:200]

    @property
    def counts(self) -> bool:
        """Whether it is one of those of which five in a row are the model's failure."""
        if self.is_doubtful or self.kind or self.status is None:
            return self.is_doubtful
        return self.status in _DOUBTFUL or (self.status >= 500 and self.status not in _PASSING)


@dataclass(frozen=True)
class Again:
    """Ask again after a pause."""

    seconds: float


@dataclass(frozen=True)
class GiveUp:
    """Do not ask again; the execution fails for this reason."""

    reason: str


@dataclass
class Trouble:
    """The call that is being made again and again, as the deadline's message tells it."""

    attempts: int = 0
    failure: str = ""

    @property
    def words(self) -> str:
        if not self.attempts:
            return ""
        times = "once" if self.attempts == 1 else f"{self.attempts} times"
        return f"; the last call failed {times} until then, at last: {self.failure}"


def decide(failure: Failure, attempt: int, doubts: int, luck: float) -> Again | GiveUp:
    """What follows the given attempt. `luck` in 0..1 spreads the pauses.

    Counted from 1 are the failures in a row: `attempt` all of them, `doubts` those that count. Transport failures and
    passing refusals are tried again without end, since the deadline ends them; five doubtful answers are the model's
    failure.
    """
    status = failure.status
    is_endless = bool(failure.kind) or status is None or status in _PASSING
    if not failure.is_permanent and (doubts < DOUBTFUL_TRIES if failure.counts else is_endless):
        asked = retry_after_seconds(failure.retry_after, time.time())
        longest = _LONGEST_PAUSE_SECONDS if status is None else _LONGEST_PAUSE_OF_PROVIDERS
        return Again(asked if asked is not None else _pause(attempt, longest, luck))
    return GiveUp(_REASON_OF_KIND.get(failure.kind) or _REASON_OF_STATUS.get(status or 0, "model"))


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


def _pause(attempt: int, longest: float, luck: float) -> float:
    seconds = min(longest, _FIRST_PAUSE_SECONDS * 2.0 ** min(attempt - 1, 10))
    return seconds * (0.5 + luck / 2)
