"""A model's answer in the chat completions protocol, built from a stream of deltas or from one whole message."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable

OnDelta = Callable[[str, str], None]


class BadAnswer(Exception):
    """What came back is no chat completion."""


class ModelError(Exception):
    """The stream carries an error object. `status` is the HTTP status that it names, or None."""

    def __init__(self, message: str, status: int | None) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Call:
    """A tool call as the model wrote it: `arguments` is text that should be a JSON object."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Usage:
    """Tokens of one model call; `cached_tokens` are part of `input_tokens`."""

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


class AnswerBuilder:
    """Collects one answer and passes its deltas on: `on_delta("text" or "thinking", piece)`."""

    def __init__(self, turn: int, on_delta: OnDelta) -> None:
        self._turn = turn
        self._on_delta = on_delta
        self._text: list[str] = []
        self._text_length = 0
        self._refusal: list[str] = []
        self._calls: dict[int, dict[str, str]] = {}
        self._usage: Usage | None = None
        self._finish_reason = ""

    def add(self, chunk: Any) -> None:
        """Take one chunk, streamed or whole. Raises `ModelError` for an error object, `BadAnswer` for nonsense."""
        if not isinstance(chunk, dict):
            raise BadAnswer(f"a chunk that is no object: {str(chunk)[:200]}")
        if chunk.get("error"):
            raise _model_error(chunk["error"])
        self._usage = _usage(chunk.get("usage")) or self._usage
        for choice in _objects(chunk.get("choices"))[:1]:
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

    def cut_off(self) -> None:
        """Nothing more is read: the answer ends here, as at its token limit."""
        self._finish_reason = "length"

    def answer(self) -> Answer:
        """What was collected; calls that lack an id get one."""
        calls = tuple(
            Call(call["id"] or f"call_{self._turn}_{index}", call["name"], call["arguments"])
            for index, call in sorted(self._calls.items())
        )
        return Answer(_joined(self._text), calls, self._usage, self._finish_reason, _joined(self._refusal))

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
        for position, piece in enumerate(_objects(delta.get("tool_calls"))):
            self._take_call(position, piece)

    def _take_call(self, position: int, piece: dict[str, Any]) -> None:
        index = piece.get("index")
        if type(index) is not int:
            index = self._index_of(piece.get("id"), position)
        call = self._calls.setdefault(index, {"id": "", "name": "", "arguments": ""})
        function = piece.get("function")
        if isinstance(piece.get("id"), str):
            call["id"] = call["id"] or piece["id"]
        if isinstance(function, dict):
            call["name"] = call["name"] or str(function.get("name") or "")
            arguments = function.get("arguments")
            if isinstance(arguments, str):
                call["arguments"] += arguments

    def _index_of(self, call_id: Any, position: int) -> int:
        """The place of a piece without an index: that of its id, else a new one for a new id, else its position."""
        if not isinstance(call_id, str) or not call_id:
            return position
        for index, call in self._calls.items():
            if call["id"] == call_id:
                return index
        return len(self._calls)


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
    if not isinstance(value, dict):
        return None
    details = value.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else 0
    return Usage(_count(value.get("prompt_tokens")), _count(value.get("completion_tokens")), _count(cached))


def _count(value: Any) -> int:
    return value if type(value) is int and 0 < value < 2**53 else 0


def _model_error(error: Any) -> ModelError:
    if not isinstance(error, dict):
        return ModelError(str(error)[:2000], None)
    for key in ("status", "status_code", "code"):
        value = error.get(key)
        if str(value).isdigit():
            return ModelError(str(error.get("message") or error)[:2000], int(str(value)))
    status = _STATUS_OF_TYPE.get(str(error.get("type"))) or _STATUS_OF_TYPE.get(str(error.get("code")))
    return ModelError(str(error.get("message") or error)[:2000], status)


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
