"""A model's answer in the chat completions protocol, built from a stream of deltas or from one whole message.

The gateway and the runtime put answers together with this one module: both see the same calls, and agree on when an
answer is whole. Standard library only, Python 3.9+.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any, Callable

OnDelta = Callable[[str, str], None]


class BadAnswer(Exception):
    """What came back is no chat completion."""


class ModelError(Exception):
    """The stream carries an error object, `error`. `status` is the HTTP status that it names, or None."""

    def __init__(self, message: str, status: int | None, error: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.error = error or {}


@dataclass(frozen=True)
class Call:
    """A tool call as the model wrote it: `arguments` is text that should be a JSON object."""

    id: str
    name: str
    arguments: str
    extra: dict[str, Any] = field(default_factory=dict)
    """What the provider has to be shown again with this call (`extra_content`: Google's thought signature)."""

    def sent(self, arguments: str) -> dict[str, Any]:
        """The call as a message of the conversation holds it, with these arguments."""
        function = {"name": self.name, "arguments": arguments}
        return {"id": self.id, "type": "function", "function": function, **_extra(self.extra)}


@dataclass(frozen=True)
class Usage:
    """Tokens of one model call; `cached_tokens` are part of `input_tokens`, thinking is part of `output_tokens`."""

    input_tokens: int
    output_tokens: int
    cached_tokens: int


@dataclass(frozen=True)
class Answer:
    """One whole answer."""

    text: str
    calls: tuple[Call, ...]
    usage: Usage | None
    finish_reason: str
    refusal: str = ""
    """What the model says when it declines to give an answer in the asked format."""
    extra: dict[str, Any] = field(default_factory=dict)
    """As a call's, for the message itself."""

    def message(self, arguments_of: Callable[[Call], str] = lambda call: call.arguments) -> dict[str, Any]:
        """The answer as a message of the conversation."""
        message: dict[str, Any] = {"role": "assistant", "content": self.text or None, **_extra(self.extra)}
        if self.calls:
            message["tool_calls"] = [call.sent(arguments_of(call)) for call in self.calls]
        return message


class AnswerBuilder:
    """Collects one answer and passes its deltas on: `on_delta("text" or "thinking", piece)`."""

    def __init__(self, turn: int, on_delta: OnDelta = lambda kind, piece: None) -> None:
        self._turn = turn
        self._on_delta = on_delta
        self._text: list[str] = []
        self._text_length = 0
        self._refusal: list[str] = []
        self._extra: dict[str, Any] = {}
        self._calls = _Calls()
        self._usage: Usage | None = None
        self._finish_reason = ""

    def add(self, chunk: Any) -> None:
        """Take one chunk, streamed or whole. Raises `ModelError` for an error object, `BadAnswer` for nonsense."""
        if not isinstance(chunk, dict):
            raise BadAnswer(f"a chunk that is no object: {str(chunk)[:200]}")
        if chunk.get("error"):
            raise error_in(chunk["error"])
        self._usage = _usage(chunk.get("usage")) or self._usage
        for choice in [each for each in _objects(chunk.get("choices")) if not each.get("index")][:1]:
            delta = choice.get("delta") or choice.get("message")
            if isinstance(delta, dict):
                self._take(delta)
            if choice.get("finish_reason"):
                self._finish_reason = str(choice["finish_reason"])

    @property
    def is_complete(self) -> bool:
        """Whether the model said that it has finished."""
        return bool(self._finish_reason)

    @property
    def text_length(self) -> int:
        """Characters of text so far."""
        return self._text_length

    def end(self) -> None:
        """The stream has said `[DONE]`: what there is is whole, unless that is nothing."""
        if not self._finish_reason and (self._text or self._refusal or self._calls.all):
            self._finish_reason = "tool_calls" if self._calls.all else "stop"

    def cut_off(self) -> None:
        """Nothing more is read: the answer ends here, as at its token limit."""
        self._finish_reason = "length"

    def answer(self) -> Answer:
        """What was collected; calls that lack an id get one."""
        text, refusal = _joined(self._text), _joined(self._refusal)
        calls = self._calls.whole(self._turn)
        return Answer(text, calls, self._usage, self._finish_reason, refusal, self._extra)

    def _take(self, delta: dict[str, Any]) -> None:
        thought = delta.get("reasoning_content") or delta.get("reasoning")
        if isinstance(thought, str) and thought:
            self._on_delta("thinking", thought)
        text = _text(delta.get("content"))
        if text:
            self._text.append(text)
            self._text_length += len(text)
            self._on_delta("text", text)
        if isinstance(delta.get("refusal"), str):
            self._refusal.append(delta["refusal"])
        self._extra = _merged(self._extra, delta.get("extra_content"))
        for position, piece in enumerate(_objects(delta.get("tool_calls"))):
            self._calls.take(position, piece)


@dataclass
class _Call:
    """A call under way."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def is_whole(self) -> bool:
        """Whether its arguments are JSON: no piece of this call follows."""
        if not self.arguments.rstrip().endswith("}"):
            return False
        try:
            json.loads(self.arguments)
        except (ValueError, RecursionError):
            return False
        return True


class _Calls:
    """Tool calls out of their pieces.

    A piece belongs to the call of its id. Its `index` counts only without one: some providers leave it out, and some
    say 0 of every call. A piece with neither goes on with the last call, unless it begins another one.
    """

    def __init__(self) -> None:
        self.all: list[_Call] = []

    def take(self, position: int, piece: dict[str, Any]) -> None:
        """Add a piece, which stood at that position of its delta."""
        function = piece.get("function")
        function = function if isinstance(function, dict) else {}
        name, arguments = (
            value if isinstance(value, str) else "" for value in map(function.get, ("name", "arguments"))
        )
        identity = piece.get("id") if isinstance(piece.get("id"), str) else ""
        index = piece.get("index") if type(piece.get("index")) is int else None
        call = self._call_of(str(identity or ""), index, position, name, arguments)
        call.id = call.id or str(identity or "")
        call.name = call.name or name
        call.arguments += arguments
        call.extra = _merged(call.extra, piece.get("extra_content"))

    def whole(self, turn: int) -> tuple[Call, ...]:
        """The calls, in the order of their numbers and then of their beginnings."""
        calls = sorted(self.all, key=lambda call: call.index)
        return tuple(
            Call(call.id or f"call_{turn}_{number}", call.name, call.arguments, call.extra)
            for number, call in enumerate(calls)
        )

    def _call_of(self, identity: str, index: int | None, position: int, name: str, arguments: str) -> _Call:
        last = self.all[-1] if self.all else None
        if identity:
            same = next((call for call in self.all if call.id == identity), None)
            waiting = (
                last if last and not last.id and not (last.name and name) and index in (None, last.index) else None
            )
            return same or waiting or self._new(index, position)
        if index is not None:
            last = next((call for call in reversed(self.all) if call.index == index), None)
        if last is None or (name and last.name and _is_another(last, name, arguments, index is None and position > 0)):
            return self._new(index, position)
        return last

    def _new(self, index: int | None, position: int) -> _Call:
        call = _Call(position if index is None else index)
        self.all.append(call)
        return call


def _is_another(last: _Call, name: str, arguments: str, is_beside: bool) -> bool:
    """Whether a named piece behind this call begins another one, and does not only say the name again."""
    return is_beside or name != last.name or (bool(arguments) and last.is_whole)


def _extra(values: dict[str, Any]) -> dict[str, Any]:
    return {"extra_content": values} if values else {}


def _merged(old: dict[str, Any], new: Any) -> dict[str, Any]:
    """Both objects in one, what is newer before what is older."""
    if not isinstance(new, dict):
        return old
    both = {**old, **new}
    for key in old.keys() & new.keys():
        if isinstance(old[key], dict) and isinstance(new[key], dict):
            both[key] = {**old[key], **new[key]}
    return both


def _joined(pieces: list[str]) -> str:
    """The pieces as one text; a character whose two surrogates came in two pieces is whole again."""
    return "".join(pieces).encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _text(content: Any) -> str:
    """The text of a content, which may be a list of parts."""
    if isinstance(content, str):
        return content
    return "".join(str(part.get("text") or "") for part in _objects(content))


def _objects(value: Any) -> list[dict[str, Any]]:
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def _usage(value: Any) -> Usage | None:
    """The tokens as OpenAI states them; those of the thinking, where they are only in the total, are output."""
    if not isinstance(value, dict):
        return None
    details = value.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else 0
    read, written, total = (_count(value.get(f"{kind}_tokens")) for kind in ("prompt", "completion", "total"))
    return Usage(read, max(written, total - read), _count(cached))


def _count(value: Any) -> int:
    return value if type(value) is int and 0 < value < 2**53 else 0


def error_in(error: Any) -> ModelError:
    """What the error object of a stream, of whatever shape, says."""
    if not isinstance(error, dict):
        return ModelError(str(error)[:2000], None)
    message = str(error.get("message") or error)[:2000]
    for key in ("status", "status_code", "code"):
        value = str(error.get(key))
        if value.isascii() and value.isdigit() and len(value) == 3:
            return ModelError(message, int(value), error)
    status = _STATUS_OF_TYPE.get(str(error.get("type"))) or _STATUS_OF_TYPE.get(str(error.get("code")))
    return ModelError(message, status, error)


# The names that providers give to errors inside a stream, whose HTTP status was sent before.
_STATUS_OF_TYPE = {
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "overloaded_error": 503,
    "server_error": 500,
    "api_error": 500,
    "timeout_error": 504,
    "invalid_request_error": 400,
    "authentication_error": 401,
    "permission_error": 403,
    "insufficient_quota": 402,
}
