"""Providers that speak OpenAI's chat completions over HTTP: most of them, and most servers that one runs oneself."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2

from djinn.providers.base import Body, CallContext, ProviderError

TIMEOUT = httpx2.Timeout(connect=10, read=300, write=60, pool=10)
PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
LONGEST_LINE = 4 * 1024 * 1024


class CompatibleProvider:
    """One base URL and its key. The key goes into the request's header and nowhere else."""

    def __init__(self, name: str, *, base_url: str, key: str) -> None:
        self.name = name
        self._url = base_url.rstrip("/") + "/chat/completions"
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    async def chat(self, model: str, body: Body, context: CallContext) -> AsyncIterator[Body]:
        """The provider's chunks as they come. Nothing is tried again here: the runtime knows how long it may wait."""
        payload = {**body, "model": model, "stream": True, "stream_options": {"include_usage": True}}
        try:
            async with httpx2.AsyncClient(timeout=TIMEOUT, follow_redirects=False) as client:
                async with client.stream("POST", self._url, json=payload, headers=self._headers) as response:
                    if response.status_code != 200:
                        raise await self._refusal(response)
                    async for line in response.aiter_lines():
                        if chunk := self._chunk(line):
                            yield chunk
        except httpx2.HTTPError as exc:
            raise ProviderError(f"{self.name}: {exc or type(exc).__name__}", permanent=False, status=502) from exc

    def _chunk(self, line: str) -> Body | None:
        if not line.startswith("data:") or line.endswith("[DONE]"):
            return None
        try:
            value = json.loads(line[5:]) if len(line) <= LONGEST_LINE else None
        except ValueError as exc:
            raise ProviderError(f"{self.name} sent a line that is not JSON", permanent=False) from exc
        if not isinstance(value, dict):
            raise ProviderError(f"{self.name} sent a chunk that is no object", permanent=False)
        if "error" in value:
            raise ProviderError(f"{self.name}: {_words(value)}", permanent=False)
        return value

    async def _refusal(self, response: httpx2.Response) -> ProviderError:
        """The provider's answer as an error. Its 401 or 403 is ours to mend, so the container hears 502, not its own 401."""
        text = (await response.aread())[:4000].decode("utf-8", "replace")
        status = response.status_code
        return ProviderError(
            f"{self.name} answered {status}: {_words(text)}",
            permanent=status not in PASSING,
            status=status if status in PASSING else 400,
            retry_after_seconds=_seconds(response.headers.get("Retry-After")),
        )


def _words(answer: Any) -> str:
    try:
        value = json.loads(answer) if isinstance(answer, str) else answer
        error = value["error"]
        return str(error.get("message") if isinstance(error, dict) else error)[:500]
    except (ValueError, TypeError, KeyError):
        return str(answer)[:500]


def _seconds(header: str | None) -> float | None:
    """`Retry-After` in seconds; its other form, a date, is not used by model providers."""
    return float(header) if header and header.replace(".", "", 1).isdigit() else None
