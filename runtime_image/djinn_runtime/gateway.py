"""The gateway's client: one request over its Unix socket, made until it is answered or refused for good."""

from __future__ import annotations

import http.client
import json
import os
import socket
import time
from typing import Any, Callable, TypeVar

from .answer import BadAnswer, ModelError
from .journal import Journal
from .outcome import Ended, failed
from .protocol import Brief
from .retry import Failure, GiveUp, Trouble, decide
from .sse import EventTooLarge

CONNECT_SECONDS = 10.0
SILENCE_SECONDS = 600.0  # a model may think for minutes before its first word
_ERROR_BODY_BYTES = 64 * 1024

T = TypeVar("T")


class Refused(Ended):
    """What was asked for cannot be had. `status` is the HTTP status, None when there was none."""

    def __init__(self, reason: str, message: str, failure: Failure) -> None:
        super().__init__(failed(reason, message))
        self.status = failure.status
        self.kind = failure.kind


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
    """The one door of the container. What has to be tried again is told in the journal, and kept in `trouble`."""

    def __init__(self, brief: Brief, journal: Journal, trouble: Trouble) -> None:
        self._socket = brief.gateway_socket
        self._token = brief.token
        self._journal = journal
        self._trouble = trouble

    def post(self, path: str, body: bytes, turn: int, take: Callable[[http.client.HTTPResponse], T]) -> T:
        """What `take` makes of the answer with status 200; raises `Refused` when there is none to be had.

        `take` raises `BadAnswer`, `ValueError` or `ModelError` for an answer that it cannot use; that is asked again.
        """
        doubts = 0
        while True:
            try:
                answer = self._attempt(path, body, turn, take)
            except _Failed as exc:
                self._trouble.attempts += 1
                self._trouble.failure = exc.failure.words
                doubts += exc.failure.counts
                self._pause_or_end(exc.failure, self._trouble.attempts, doubts)
            else:
                self._tell_recovered()
                return answer

    def _pause_or_end(self, failure: Failure, attempt: int, doubts: int) -> None:
        decision = decide(failure, attempt, doubts, os.urandom(1)[0] / 255)
        if isinstance(decision, GiveUp):
            self._trouble.attempts = 0
            times = f"Model call failed after {attempt} attempts: " if attempt > 1 else ""
            raise Refused(decision.reason, times + failure.message, failure)
        if attempt & (attempt - 1) == 0:  # the 1st, 2nd, 4th, 8th...: a long outage is no flood
            self._tell_retry(failure, attempt + 1, decision.seconds)
        time.sleep(decision.seconds)

    def _tell_retry(self, failure: Failure, attempt: int, seconds: float) -> None:
        retry = {"attempt": attempt, "failure": failure.words, "next_seconds": round(seconds, 1)}
        text = f"Call failed: {failure.words}; retrying in {seconds:.1f} s (attempt {attempt})"
        self._journal.append("log", level="warning", text=text, retry=retry)

    def _tell_recovered(self) -> None:
        attempts, self._trouble.attempts = self._trouble.attempts, 0
        if attempts:
            text = f"The call went through at attempt {attempts + 1}"
            self._journal.append("log", level="info", text=text, retry=None)

    def _attempt(self, path: str, body: bytes, turn: int, take: Callable[[http.client.HTTPResponse], T]) -> T:
        connection = _UnixConnection(self._socket)
        has_begun = False
        try:
            connection.request("POST", path, body, self._headers(turn))
            response = connection.getresponse()
            has_begun = response.status == 200
            if not has_begun:
                raise _Failed(_refusal(response))
            return take(response)
        except (OSError, http.client.HTTPException) as exc:
            failure = Failure(f"the gateway's answer was cut off or never came: {_name(exc)}", is_doubtful=has_begun)
            raise _Failed(failure) from exc
        except ModelError as exc:
            raise _Failed(_stated(exc.error, str(exc), exc.status)) from exc
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
    """The gateway's refusal. What it says of a provider is passed on as it is; its own words get its name."""
    text = response.read(_ERROR_BODY_BYTES).decode("utf-8", "replace")
    error, retry_after = _error(text), response.headers.get("Retry-After", "")
    if error.get("kind"):
        return _stated(error, str(error.get("message")), response.status, retry_after)
    return Failure(f"the gateway answered {response.status}: {_message(text)}", response.status, retry_after)


def _stated(error: dict[str, Any], message: str, status: int | None, retry_after: str = "") -> Failure:
    """A failure as an error object states it; one without a status may have been paid for."""
    kind = str(error.get("kind") or "")
    return Failure(
        message[:2000],
        status,
        retry_after or str(error.get("retry_after") or ""),
        is_doubtful=bool(error.get("doubtful")) if kind else status is None,
        kind=kind,
        is_permanent=bool(kind and error.get("permanent")),
        short=str(error.get("failure") or "")[:200],
    )


def _error(text: str) -> dict[str, Any]:
    """The error object of a body, empty when there is none."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    error = value.get("error") if isinstance(value, dict) else None
    return error if isinstance(error, dict) else {}


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
