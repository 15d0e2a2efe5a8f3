"""Providers that speak OpenAI's chat completions over HTTP: most of them, and most servers that one runs oneself."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator
from typing import Any

import httpx2

from djinn.providers.base import Body, CallContext, ProviderError, ProviderRefused

TIMEOUT = httpx2.Timeout(connect=10, read=300, write=60, pool=10)
PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
UNKNOWN = frozenset({408, 504, 524})
"""Somebody on the way grew tired of waiting: the model may have worked, and may be paid for."""
UNSENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.UnsupportedProtocol, httpx2.InvalidURL)
LONGEST_LINE = 4 * 1024 * 1024
LONGEST_WORDS = 500
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_SECONDS = re.compile(r"[0-9]{1,6}(\.[0-9]{1,6})?")


class CompatibleProvider:
    """One base URL and its key. The key goes into the request's header and nowhere else."""

    def __init__(self, name: str, *, base_url: str, key: str) -> None:
        self.name = name
        self._key = key
        self._url = base_url.rstrip("/") + "/chat/completions"
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})

    async def chat(self, model: str, body: Body, context: CallContext) -> AsyncGenerator[Body]:
        """The provider's chunks as they come. Nothing is tried again here: the runtime knows how long it may wait."""
        payload = {**body, "model": model, "stream": True, "stream_options": {"include_usage": True}}
        is_whole = False
        try:
            async with (
                httpx2.AsyncClient(timeout=TIMEOUT, follow_redirects=False) as client,
                client.stream("POST", self._url, content=json.dumps(payload), headers=self._headers) as response,
            ):
                if response.status_code != 200:
                    raise await self._refusal(response)
                async for line in response.aiter_lines():
                    is_whole = is_whole or line.split() == ["data:", "[DONE]"]
                    if chunk := self._chunk(line):
                        is_whole = is_whole or any(choice.get("finish_reason") for choice in chunk["choices"])
                        yield chunk
        except (httpx2.HTTPError, httpx2.InvalidURL) as exc:
            kind = ProviderRefused if isinstance(exc, UNSENT) else ProviderError
            raise self._error(str(exc) or type(exc).__name__, kind=kind) from exc
        if not is_whole:
            raise self._error("broke off before the end of its answer")

    def _chunk(self, line: str) -> Body | None:
        """The chunk of a line, its `choices` a list of objects; None for a line that holds none."""
        if not line.startswith("data:") or line.endswith("[DONE]"):
            return None
        if len(line) > LONGEST_LINE:
            raise self._error("sent a line that is too long")
        try:
            value = json.loads(line[5:])
        except (ValueError, RecursionError) as exc:
            raise self._error("sent a line that is not JSON") from exc
        if isinstance(value, dict) and value.get("error"):
            raise self._error(_words(value))
        choices = (value.get("choices") or []) if isinstance(value, dict) else None
        if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
            raise self._error("sent a line that is no chunk")
        return {**value, "choices": choices}

    async def _refusal(self, response: httpx2.Response) -> ProviderError:
        """The provider's answer as an error.

        A container hears its status only where asking again can help; anything else, such as a 401 that is ours to
        mend, is a 400 there.
        """
        text = (await response.aread())[:4000].decode("utf-8", "replace")
        status = response.status_code
        return self._error(
            f"answered {status}: {_words(text)}",
            permanent=status not in PASSING,
            status=status if status in PASSING else 400,
            kind=ProviderError if status in UNKNOWN else ProviderRefused,
            retry_after_seconds=_seconds(response.headers.get("Retry-After")),
        )

    def _error(
        self,
        words: str,
        *,
        permanent: bool = False,
        status: int = 502,
        kind: type[ProviderError] = ProviderError,
        retry_after_seconds: float | None = None,
    ) -> ProviderError:
        """An error that can be shown and stored: without the key, which some servers quote when they refuse it."""
        text = words.replace(self._key, "[the key]") if self._key else words
        return kind(
            f"{self.name}: {_UNSTORABLE.sub('?', text)[:LONGEST_WORDS]}",
            permanent=permanent,
            status=status,
            retry_after_seconds=retry_after_seconds,
        )


def _words(answer: Any) -> str:
    """What an answer says is wrong: the message of its error, else all of it."""
    try:
        value = json.loads(answer) if isinstance(answer, str) else answer
        error = value["error"]
        return str(error.get("message") if isinstance(error, dict) else error)
    except (ValueError, TypeError, KeyError, RecursionError):
        return str(answer)


def _seconds(header: str | None) -> float | None:
    """`Retry-After` in seconds; its other form, a date, is not used by model providers."""
    return float(header) if header and _SECONDS.fullmatch(header) else None
