"""What can go wrong with a provider: a closed list, and for each the words that a person reads.

A fault is judged once, here, from the provider's answer. Everybody behind it reads fields: whether it is permanent,
whether it is doubtful (an answer was begun and perhaps paid for, but is of no use), how long to wait.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

LONGEST_WORDS = 300
_UNSTORABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]+")
_KEY_LIKE = re.compile(r"(?i)\b(?:bearer\s+\S+|(?:sk|pk|gsk|xai|key)[-_][^\s'\"<>,;]{6,}|AIza[^\s'\"<>,;]{8,})")


class Fault(StrEnum):
    """The kinds."""

    NO_KEY = "no_key"
    KEY_REFUSED = "key_refused"
    UNKNOWN_MODEL = "unknown_model"
    NO_CREDIT = "no_credit"
    TOO_LONG = "too_long"
    """The conversation does not fit into the model's context."""
    REFUSED = "refused"
    BUDGET = "budget"
    """Ours: the call does not fit into the run's budget."""
    GAVE_UP = "gave_up"
    """Ours: too many doubtful answers in a row."""
    RATE_LIMITED = "rate_limited"
    OVERLOADED = "overloaded"
    UNREACHABLE = "unreachable"
    SERVER_ERROR = "server_error"
    TIMED_OUT = "timed_out"
    STALLED = "stalled"
    BROKE_OFF = "broke_off"
    GARBLED = "garbled"


PERMANENT = frozenset(
    {
        Fault.NO_KEY, Fault.KEY_REFUSED, Fault.UNKNOWN_MODEL, Fault.NO_CREDIT,
        Fault.TOO_LONG, Fault.REFUSED, Fault.BUDGET, Fault.GAVE_UP,
    }
)  # fmt: skip
DOUBTFUL = frozenset({Fault.SERVER_ERROR, Fault.TIMED_OUT, Fault.STALLED, Fault.BROKE_OFF, Fault.GARBLED})
PAID = frozenset({Fault.TIMED_OUT, Fault.STALLED, Fault.BROKE_OFF, Fault.GARBLED})
"""The model may have worked: such a call counts as the most that it can cost."""

_OF_STATUS = {
    401: Fault.KEY_REFUSED, 403: Fault.KEY_REFUSED, 402: Fault.NO_CREDIT, 404: Fault.UNKNOWN_MODEL,
    413: Fault.TOO_LONG, 409: Fault.OVERLOADED, 425: Fault.OVERLOADED, 429: Fault.RATE_LIMITED,
    503: Fault.OVERLOADED, 529: Fault.OVERLOADED, 408: Fault.TIMED_OUT, 504: Fault.TIMED_OUT, 524: Fault.TIMED_OUT,
}  # fmt: skip
_OF_CODE = {
    "insufficient_quota": Fault.NO_CREDIT, "billing_hard_limit_reached": Fault.NO_CREDIT,
    "context_length_exceeded": Fault.TOO_LONG, "string_above_max_length": Fault.TOO_LONG,
    "model_not_found": Fault.UNKNOWN_MODEL, "invalid_api_key": Fault.KEY_REFUSED,
    "authentication_error": Fault.KEY_REFUSED,
}  # fmt: skip
_TOO_LONG = re.compile(
    r"(?i)context (length|window)|prompt is too long|maximum (context|number of tokens)|too many tokens"
)
_KEY_INVALID = re.compile(r"(?i)api.key not valid|invalid api.key|incorrect api.key")


@dataclass(frozen=True)
class Place:
    """A provider as its faults name it: its label, and the variables that hold its key and its address."""

    label: str
    key_variable: str = ""
    url_variable: str = ""


@dataclass(frozen=True)
class Told:
    """A fault in words: `failure` for a list ("rate limited (429)"), `message` whole, with what to do next."""

    fault: Fault
    failure: str
    message: str


def fault_of(status: int, error: Mapping[str, Any]) -> Fault:
    """The kind of an answer that is no answer, by its status and by what its error object names."""
    for key in ("code", "type", "status"):
        if (found := _OF_CODE.get(str(error.get(key)))) is not None:
            return found
    words = str(error.get("message") or "")[:4000]
    if status in {400, 401, 403} and _KEY_INVALID.search(words):
        return Fault.KEY_REFUSED
    if status in {400, 422} and _TOO_LONG.search(words):
        return Fault.TOO_LONG
    return _OF_STATUS.get(status) or (Fault.SERVER_ERROR if status >= 500 else Fault.REFUSED)


def told(fault: Fault, place: Place, *, model: str, status: int | None = None, words: str = "") -> Told:
    """The fault in words. `words` are the provider's own, already scrubbed."""
    number = f" ({status})" if status else ""
    said = f": {words.rstrip('.')}" if words else ""
    match fault:
        case Fault.KEY_REFUSED if status == 403:
            text = f"{place.label} does not allow this call{number}{said}."
            todo = f"Check what the key in {place.key_variable} may use, and restart the run."
            return Told(fault, f"not allowed{number}", f"{text} {todo}")
        case Fault.KEY_REFUSED:
            text = f"{place.label} refused the key{number}. Set {place.key_variable} and restart the run."
            return Told(fault, f"key refused{number}", text)
        case Fault.UNKNOWN_MODEL:
            text = f"{place.label} does not know the model {model}{number}. Name another model and restart the run"
            return Told(fault, f"unknown model{number}", f"{text}, or check {place.url_variable}.")
        case Fault.NO_CREDIT:
            text = f"{place.label} wants to be paid{number}{said}. Check the account's credit, then restart the run."
            return Told(fault, f"no credit{number}", text)
        case Fault.TOO_LONG:
            text = f"The conversation is too long for {model}{number}{said}."
            return Told(
                fault, f"too long{number}", f"{text} Give the step less to read, or a model with a larger context."
            )
        case _:
            return Told(
                fault, f"{_SHORT.get(fault, 'refused')}{number}", f"{place.label} {_LONG[fault]}{number}{said}."
            )


_SHORT = {
    Fault.RATE_LIMITED: "rate limited", Fault.OVERLOADED: "overloaded", Fault.UNREACHABLE: "cannot be reached",
    Fault.SERVER_ERROR: "server error", Fault.TIMED_OUT: "timed out", Fault.STALLED: "stalled",
    Fault.BROKE_OFF: "answer broke off", Fault.GARBLED: "unreadable answer", Fault.NO_KEY: "no key",
}  # fmt: skip
_LONG = {
    Fault.REFUSED: "refused the request", Fault.RATE_LIMITED: "limits the rate of calls",
    Fault.OVERLOADED: "is overloaded", Fault.UNREACHABLE: "cannot be reached",
    Fault.SERVER_ERROR: "had an error of its own", Fault.TIMED_OUT: "did not answer in time",
    Fault.STALLED: "stopped sending", Fault.BROKE_OFF: "broke off before the end of its answer",
    Fault.GARBLED: "sent an answer that cannot be read", Fault.NO_KEY: "has no key",
}  # fmt: skip


def error_object(text: str) -> Mapping[str, Any]:
    """The error object in an error's body, whatever its shape; empty when the body is none. Never the body itself."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    if isinstance(value, list) and value:  # Google wraps it in a list
        value = value[0]
    if not isinstance(value, Mapping):
        return {}
    error = value.get("error") or value
    return error if isinstance(error, Mapping) else {"message": str(error)}


def scrubbed(words: object, key: str) -> str:
    """A provider's words, cut, fit to be stored and shown: without the key, whole or masked, which some quote."""
    text = words if isinstance(words, str) else ""
    text = text.replace(key, "[the key]") if key else text
    return _KEY_LIKE.sub("[a key]", _UNSTORABLE.sub(" ", text))[:LONGEST_WORDS].strip()
