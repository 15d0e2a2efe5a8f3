"""Providers that speak OpenAI's chat completions over HTTP: most of them, and most servers that one runs oneself."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress

import httpx2

from djinn.providers.base import Body, CallContext, ProviderError, ProviderRefused
from djinn.providers.clients import CONNECT_SECONDS, POOL_SECONDS, WRITE_SECONDS, client_of
from djinn.providers.dialects import adapted
from djinn.providers.faults import PAID, PERMANENT, Fault, Place, error_object, fault_of, scrubbed, told
from djinn.providers.streams import Patience, Stalled, TooMuch, error_text, lines
from runtime_image.djinn_runtime.answer import ModelError, error_in

UNSENT = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.UnsupportedProtocol, httpx2.InvalidURL)
PATIENCE = Patience(first_seconds=300.0, stall_seconds=60.0)
_SECONDS = re.compile(r"[0-9]{1,6}(\.[0-9]{1,6})?")
DRAIN_SECONDS = 1.0
_DONE = [b"data:", b"[DONE]"]


class CompatibleProvider:
    """One base URL and its key. The key goes into the request's header and nowhere else."""

    def __init__(self, name: str, *, base_url: str, key: str, place: Place, patience: Patience = PATIENCE) -> None:
        self.name = name
        self._key = key
        self._place = place
        self._patience = patience
        self._url = base_url.rstrip("/") + "/chat/completions"
        self._headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if key:
            self._headers["Authorization"] = f"Bearer {key}"

    async def chat(self, model: str, body: Body, context: CallContext) -> AsyncGenerator[Body]:
        """The provider's chunks as they come. Nothing is tried again here: the runtime knows how long it may wait."""
        stated = {**body, "model": model, "stream": True, "stream_options": {"include_usage": True}}
        content = json.dumps(adapted(self.name, model, stated))
        reading = _Reading(self, model)
        try:
            client = await client_of(self.name)
            timeout = httpx2.Timeout(
                connect=CONNECT_SECONDS, read=self._patience.first_seconds, write=WRITE_SECONDS, pool=POOL_SECONDS
            )
            async with client.stream(
                "POST", self._url, content=content, headers=self._headers, timeout=timeout
            ) as response:
                await self._check_head(response, model)
                async with aclosing(lines(response, self._patience)) as found:
                    async for line in found:
                        if chunk := reading.chunk(line):
                            yield chunk
                        elif reading.is_done:
                            await _drain(found)
                            break
        except httpx2.PoolTimeout as exc:
            words = "too many calls at once on this gateway"
            raise self.error(Fault.OVERLOADED, model, status=503, words=words, kind=ProviderRefused) from exc
        except UNSENT as exc:
            raise self.error(Fault.UNREACHABLE, model, words=_name(exc), kind=ProviderRefused) from exc
        except (Stalled, httpx2.ReadTimeout) as exc:
            if not (reading.is_done or reading.has_finished):
                words = str(exc) if isinstance(exc, Stalled) else f"nothing for {self._patience.first_seconds:.0f} s"
                raise self.error(Fault.STALLED, model, words=words) from exc
        except TooMuch as exc:
            if not reading.is_done:
                raise self.error(Fault.GARBLED, model, words=str(exc)) from exc
        except httpx2.HTTPError as exc:
            if not reading.is_done:
                raise self.error(Fault.BROKE_OFF, model, words=_name(exc)) from exc
        if not (reading.is_done or reading.has_finished):
            raise self.error(Fault.BROKE_OFF, model)

    def error(
        self,
        fault: Fault,
        model: str,
        *,
        status: int | None = None,
        words: str = "",
        kind: type[ProviderError] = ProviderError,
        retry_after_seconds: float | None = None,
    ) -> ProviderError:
        """A fault of this provider. Its status goes to the container only where asking again can help."""
        return kind(
            told(fault, self._place, model=model, status=status, words=scrubbed(words, self._key)),
            status=None if fault in PERMANENT else status,
            retry_after_seconds=retry_after_seconds,
        )

    async def _check_head(self, response: httpx2.Response, model: str) -> None:
        status = response.status_code
        if status != 200:
            error = error_object(await error_text(response))
            fault = fault_of(status, error)
            raise self.error(
                fault,
                model,
                status=status,
                words=str(error.get("message") or ""),
                kind=ProviderError if fault in PAID else ProviderRefused,
                retry_after_seconds=_seconds(response.headers.get("Retry-After")),
            )
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise self.error(Fault.GARBLED, model, words="it is compressed, which was not asked for")


class _Reading:
    """One answer as it is read: what a line holds, and whether the model has finished, and the stream is done."""

    def __init__(self, provider: CompatibleProvider, model: str) -> None:
        self._provider = provider
        self._model = model
        self._has_begun = False
        self.has_finished = False
        self.is_done = False

    def chunk(self, line: bytes) -> Body | None:
        """The chunk of a line, its `choices` a list of objects; None for a line that holds none."""
        self.is_done = self.is_done or line.split() == _DONE
        if self.is_done or not line.startswith(b"data:"):
            return None
        try:
            value = json.loads(line[5:])
        except (ValueError, RecursionError) as exc:
            raise self._error(Fault.GARBLED, words="a line is not JSON") from exc
        if isinstance(value, dict) and value.get("error"):
            raise self._stated(error_in(value["error"]))
        choices = (value.get("choices") or []) if isinstance(value, dict) else None
        if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
            raise self._error(Fault.GARBLED, words="a line is no chunk")
        self._has_begun = True
        self.has_finished = self.has_finished or any(choice.get("finish_reason") for choice in choices)
        return {**value, "choices": choices}

    def _stated(self, error: ModelError) -> ProviderError:
        """An error inside the stream: what it says when it came first, and a broken answer behind a beginning."""
        fault = fault_of(error.status or 502, error.error)
        if fault not in PERMANENT and (self._has_begun or error.status is None):
            fault = Fault.BROKE_OFF
        return self._error(fault, status=error.status, words=str(error))

    def _error(self, fault: Fault, *, status: int | None = None, words: str = "") -> ProviderError:
        return self._provider.error(fault, self._model, status=status, words=words)


async def _drain(rest: AsyncGenerator[bytes]) -> None:
    """Read to the end of the response, which is near, so that its connection can be used again."""
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_SECONDS):
            async for _ in rest:
                pass


def _name(exc: Exception) -> str:
    return type(exc).__name__


def _seconds(header: str | None) -> float | None:
    """`Retry-After` in seconds; its other form, a date, is not used by model providers."""
    return float(header) if header and _SECONDS.fullmatch(header) else None
