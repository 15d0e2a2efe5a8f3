"""Which requests have a bound on what they cost: under a budget, nothing else is sent.

Bytes bound the text that a model reads and the longest answer what it writes. Whatever a provider charges for besides
(further answers, pictures and sounds, searches, predictions, a faster tier) is refused: keys are named that may be
said, not those that may not.
"""

from __future__ import annotations

from typing import Any

from djinn.core.errors import AppError, UserError
from djinn.providers.base import Body
from djinn.providers.dialects import LENGTHS

LONGEST_ANSWER = 10_000_000
"""More tokens than any model writes."""
MOST_ANSWERS = 128
KEYS = frozenset(
    {
        *LENGTHS,
        "model", "messages", "stream", "stream_options", "n", "stop", "seed", "user", "temperature", "top_p", "top_k",
        "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty", "logit_bias", "logprobs",
        "top_logprobs", "tools", "tool_choice", "parallel_tool_calls", "response_format", "reasoning_effort",
        "verbosity",
    }
)  # fmt: skip
MESSAGE_KEYS = frozenset({"role", "content", "name", "tool_calls", "tool_call_id", "refusal", "extra_content"})
CALL_KEYS = frozenset({"id", "type", "index", "function", "extra_content"})


class Unbounded(AppError):
    """Under a budget a call says something whose cost has no bound; the text says what."""


def check_bounded(body: Body) -> None:
    """Raises `Unbounded` unless the most that the request can cost is known before it is sent."""
    if unknown := sorted(set(body) - KEYS):
        raise Unbounded(f"a run with a budget may not say {', '.join(unknown)}: it can cost more than is held back")
    if body.get("n", 1) not in (None, 1):
        raise Unbounded("a run with a budget may ask for one answer only: n must be 1")
    for message in body.get("messages", []):
        _check_message(message)
    tools = body.get("tools") or []
    if not isinstance(tools, list) or not all(
        isinstance(tool, dict) and tool.get("type") == "function" for tool in tools
    ):
        raise Unbounded("a run with a budget may use tools of type function only: providers charge for their own")


def check_numbers(body: Body) -> None:
    """Raise `UserError` for a bound on the answer, or a number of answers, that is no number of such things."""
    for key, most in ((LENGTHS[0], LONGEST_ANSWER), (LENGTHS[1], LONGEST_ANSWER), ("n", MOST_ANSWERS)):
        value = body.get(key)
        if value is not None and (type(value) is not int or not 1 <= value <= most):
            raise UserError(f"{key} must be a whole number from 1 to {most}.", details={key: f"1 to {most}"})


def wanted_output(body: Body, otherwise: int) -> int:
    """How long the answer may be as the request has it: the least of what it states."""
    stated = [body[key] for key in LENGTHS if type(body.get(key)) is int and body[key] > 0]
    return min(stated, default=otherwise)


def with_output(body: Body, tokens: int) -> Body:
    """The request with its answer bounded, by every key that it bounds it with."""
    keys = [key for key in LENGTHS if key in body] or ["max_tokens"]
    return {**body, **dict.fromkeys(keys, tokens)}


def _check_message(message: dict[str, Any]) -> None:
    if unknown := sorted(set(message) - MESSAGE_KEYS):
        raise Unbounded(f"a message of a run with a budget may not have {', '.join(unknown)}")
    _check_extra(message)
    calls = message.get("tool_calls") or []
    if not isinstance(calls, list) or not all(isinstance(call, dict) and set(call) <= CALL_KEYS for call in calls):
        raise Unbounded("a tool call of a run with a budget may have an id, a function and a signature only")
    for call in calls:
        _check_extra(call)
    content = message.get("content")
    if content is None or isinstance(content, str):
        return
    if not isinstance(content, list) or not all(_is_text(part) for part in content):
        raise Unbounded("a message of a run with a budget may be text only: the cost of other parts has no bound")


def _check_extra(said: dict[str, Any]) -> None:
    """Raise `Unbounded` unless what goes back to the provider besides is a thought signature of Google's."""
    extra = said.get("extra_content")
    google = extra.get("google") if isinstance(extra, dict) and set(extra) == {"google"} else None
    if extra is not None and not (isinstance(google, dict) and set(google) <= {"thought_signature"}):
        raise Unbounded("extra_content of a run with a budget may hold google.thought_signature only")


def _is_text(part: object) -> bool:
    return isinstance(part, dict) and set(part) == {"type", "text"} and part["type"] == "text"
