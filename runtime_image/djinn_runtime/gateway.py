"""The gateway's client: one request over its Unix socket, made until it is answered or refused for good."""

from __future__ import annotations

import http.client
import json
import os
import socket
import time
from typing import Callable, TypeVar

from .answer import BadAnswer, ModelError
from .journal import Journal
from .outcome import Ended, failed
from .protocol import Brief
from .retry import Failure, GiveUp, decide
from .sse import EventTooLarge

CONNECT_SECONDS = 10.0
SILENCE_SECONDS = 600.0  # a model may think for minutes before its first word
_ERROR_BODY_BYTES = 64 * 1024

T = TypeVar("T")


class Refused(Ended):
    """What was asked for cannot be had. `status` is the HTTP status, None when there was none."""

    def __init__(self, reason: str, message: str, status: int | None) -> None:
        super().__init__(failed(reason, message))
        self.status = status


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


class Gateway:
    """The one door of the container. What has to be tried again is told in the journal."""

    def __init__(self, brief: Brief, journal: Journal) -> None:
        self._socket = brief.gateway_socket
        self._token = brief.token
        self._journal = journal

    def post(self, path: str, body: bytes, turn: int, take: Callable[[http.client.HTTPResponse], T]) -> T:
        """What `take` makes of the answer with status 200; raises `Refused` when there is none to be had.

        `take` raises `BadAnswer`, `ValueError` or `ModelError` for an answer that it cannot use; that is asked again.
        """
        attempt = 0
        while True:
            try:
                return self._attempt(path, body, turn, take)
            except _Failed as exc:
                attempt += 1
                self._pause_or_end(exc.failure, attempt)

    def _pause_or_end(self, failure: Failure, attempt: int) -> None:
        decision = decide(failure, attempt, os.urandom(1)[0] / 255)
        if isinstance(decision, GiveUp):
            raise Refused(decision.reason, failure.message, failure.status)
        self._journal.append(
            "log",
            level="warning",
            message=f"the call failed and is made again in {decision.seconds:.1f} s: {failure.message[:500]}",
            attempt=attempt,
        )
        time.sleep(decision.seconds)

    def _attempt(self, path: str, body: bytes, turn: int, take: Callable[[http.client.HTTPResponse], T]) -> T:
        connection = _UnixConnection(self._socket)
        try:
            connection.request("POST", path, body, self._headers(turn))
            response = connection.getresponse()
            if response.status != 200:
                raise _Failed(_refusal(response))
            return take(response)
        except (OSError, http.client.HTTPException) as exc:
            raise _Failed(Failure(f"the gateway's answer was cut off or never came: {_name(exc)}")) from exc
        except ModelError as exc:
            raise _Failed(Failure(str(exc), exc.status, is_doubtful=exc.status is None)) from exc
        except (ValueError, RecursionError, BadAnswer, EventTooLarge) as exc:
            raise _Failed(Failure(f"no answer that can be used: {exc}", is_doubtful=True)) from exc
        finally:
            connection.close()

    def _headers(self, turn: int) -> dict[str, str]:
        return {
            "Authorization": f"Bearer {self._token}",
            "Content-Type": "application/json",
            "Accept": "text/event-stream, application/json",
            "Connection": "close",
            "X-Djinn-Turn": str(turn),
        }


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
