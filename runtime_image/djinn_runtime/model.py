"""The model: one question, and its answer in the chat completions protocol."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any

from .answer import Answer, AnswerBuilder, BadAnswer
from .gateway import Gateway
from .journal import Journal
from .protocol import AgentBrief
from .sse import events

PATH = "/v1/chat/completions"
MAX_ANSWER_BYTES = 32 * 1024 * 1024
_READ_BYTES = 64 * 1024


class Model:
    """Asks the model of one agent; text, thinking, message and usage go to the journal as they come.

    An answer whose text passes `max_text` characters is not read on: it ends there, as one does at its token limit.
    """

    def __init__(
        self,
        gateway: Gateway,
        agent: AgentBrief,
        tools: list[dict[str, Any]],
        journal: Journal,
        *,
        max_text: int = MAX_ANSWER_BYTES,
    ) -> None:
        self._gateway = gateway
        self._max_text = max_text
        self._options = _options(agent, tools)
        self._journal = journal

    def ask(self, messages: list[dict[str, Any]], turn: int, **options: Any) -> Answer:
        """The answer to the conversation so far. Raises `Refused` when it cannot be had."""
        body = json.dumps({**self._options, **options, "messages": messages}).encode()

        def take(response: http.client.HTTPResponse) -> Answer:
            builder = AnswerBuilder(turn, self._journal.stream)
            _collect(response, builder, self._max_text)
            return builder.answer()

        answer = self._gateway.post(PATH, body, turn, take)
        self._record(answer, turn)
        return answer

    def _record(self, answer: Answer, turn: int) -> None:
        names = [call.name for call in answer.calls]
        self._journal.append("message", role="assistant", text=answer.text, tool_calls=names, turn=turn)
        if answer.usage is not None:
            self._journal.append("usage", **vars(answer.usage), turn=turn)


def _options(agent: AgentBrief, tools: list[dict[str, Any]]) -> dict[str, Any]:
    options: dict[str, Any] = {
        "model": agent.model,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if tools:
        options["tools"] = tools
    if agent.max_output_tokens is not None:
        options["max_tokens"] = agent.max_output_tokens
    if agent.temperature is not None:
        options["temperature"] = agent.temperature
    return options


def _collect(response: http.client.HTTPResponse, builder: AnswerBuilder, max_text: int) -> None:
    if "text/event-stream" not in response.headers.get("Content-Type", "").lower():
        builder.add(json.loads(b"".join(_chunks(response))))
    else:
        for data in events(_chunks(response)):
            if data.strip() == "[DONE]":
                builder.end()
                break
            builder.add(json.loads(data))
            if builder.text_length > max_text:
                builder.cut_off()
                break
    if not builder.is_complete:
        raise http.client.IncompleteRead(b"")


def _chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    size = 0
    while True:
        chunk = response.read1(_READ_BYTES)
        if not chunk:
            return
        size += len(chunk)
        if size > MAX_ANSWER_BYTES:
            raise BadAnswer(f"an answer of over {MAX_ANSWER_BYTES} bytes")
        yield chunk
