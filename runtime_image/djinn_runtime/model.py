"""The gateway's client: one question to the model, asked until it is answered or refused for good."""

from __future__ import annotations

import http.client
import json
import os
import socket
import time
from collections.abc import Iterator
from typing import Any

from .answer import Answer, AnswerBuilder, BadAnswer, ModelError, OnDelta
from .journal import Journal
from .outcome import Ended, failed
from .protocol import AgentBrief, Brief
from .retry import Failure, GiveUp, decide
from .sse import EventTooLarge, events

PATH = "/v1/chat/completions"
CONNECT_SECONDS = 10.0
SILENCE_SECONDS = 600.0  # a model may think for minutes before its first word
MAX_ANSWER_BYTES = 32 * 1024 * 1024
_READ_BYTES = 64 * 1024
_ERROR_BODY_BYTES = 64 * 1024


class _Failed(Exception):
    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class _UnixConnection(http.client.HTTPConnection):
    """HTTP/1.1 over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("gateway")
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(CONNECT_SECONDS)
        self.sock.connect(self._path)
        self.sock.settimeout(SILENCE_SECONDS)


class Model:
    """Asks the model of one agent; its text and thinking go to the journal as they come."""

    def __init__(self, brief: Brief, agent: AgentBrief, tools: list[dict[str, Any]], journal: Journal) -> None:
        self._socket = brief.gateway_socket
        self._token = brief.token
        self._options = _options(agent, tools)
        self._journal = journal

    def ask(self, messages: list[dict[str, Any]], turn: int) -> Answer:
        """The answer to the conversation so far. Raises `Ended` when it cannot be had."""
        body = json.dumps({**self._options, "messages": messages}).encode()
        attempt = 0
        while True:
            try:
                return self._attempt(body, turn)
            except _Failed as exc:
                attempt += 1
                self._pause_or_end(exc.failure, attempt)

    def _pause_or_end(self, failure: Failure, attempt: int) -> None:
        decision = decide(failure, attempt, os.urandom(1)[0] / 255)
        if isinstance(decision, GiveUp):
            raise Ended(failed(decision.reason, failure.message))
        self._journal.append(
            "log",
            level="warning",
            message=f"the model call failed and is made again in {decision.seconds:.1f} s: {failure.message[:500]}",
            attempt=attempt,
        )
        time.sleep(decision.seconds)

    def _attempt(self, body: bytes, turn: int) -> Answer:
        connection = _UnixConnection(self._socket)
        builder = AnswerBuilder(turn, self._on_delta())
        try:
            connection.request("POST", PATH, body, self._headers(turn))
            response = connection.getresponse()
            if response.status != 200:
                raise _Failed(_refusal(response))
            _collect(response, builder)
        except (OSError, http.client.HTTPException) as exc:
            raise _Failed(Failure(f"the gateway's answer was cut off or never came: {_name(exc)}")) from exc
        except ModelError as exc:
            raise _Failed(Failure(str(exc), exc.status, is_doubtful=exc.status is None)) from exc
        except (ValueError, RecursionError, BadAnswer, EventTooLarge) as exc:
            raise _Failed(Failure(f"no chat completion: {exc}", is_doubtful=True)) from exc
        finally:
            connection.close()
        return builder.answer()

    def _on_delta(self) -> OnDelta:
        return lambda kind, text: self._journal.stream(kind, text)

    def _headers(self, turn: int) -> dict[str, str]:
        return {
            "Authorization": f"Bearer {self._token}",
            "Content-Type": "application/json",
            "Accept": "text/event-stream, application/json",
            "Connection": "close",
            "X-Djinn-Turn": str(turn),
        }


def _options(agent: AgentBrief, tools: list[dict[str, Any]]) -> dict[str, Any]:
    options: dict[str, Any] = {
        "model": agent.model,
        "tools": tools,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if agent.max_output_tokens is not None:
        options["max_tokens"] = agent.max_output_tokens
    if agent.temperature is not None:
        options["temperature"] = agent.temperature
    return options


def _collect(response: http.client.HTTPResponse, builder: AnswerBuilder) -> None:
    if "text/event-stream" not in response.headers.get("Content-Type", "").lower():
        builder.add(json.loads(b"".join(_chunks(response))))
    else:
        for data in events(_chunks(response)):
            if data.strip() == "[DONE]":
                break
            builder.add(json.loads(data))
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


def _refusal(response: http.client.HTTPResponse) -> Failure:
    text = response.read(_ERROR_BODY_BYTES).decode("utf-8", "replace")
    return Failure(
        f"the gateway answered {response.status}: {_message(text)}",
        response.status,
        response.headers.get("Retry-After", ""),
    )


def _message(text: str) -> str:
    """The message of an error body: OpenAI's shape, or the text itself."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return text.strip()[:2000]
    for key in ("error", "message", "detail"):
        if isinstance(value, dict) and value.get(key):
            value = value[key]
    return (value if isinstance(value, str) else json.dumps(value))[:2000]


def _name(exc: BaseException) -> str:
    return f"{type(exc).__name__} {exc}".strip()
