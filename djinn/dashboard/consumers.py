"""The socket of a run's page."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from importlib import import_module

import structlog
from channels.auth import get_user
from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer
from django.conf import settings
from django.http import QueryDict

from djinn.accounts.credentials import Credential
from djinn.dashboard.live import Batch, figures, next_batch
from djinn.events.access import may_read
from djinn.events.watch import Refusal, watcher_of_this_loop

log = structlog.get_logger(__name__)

BAD_CURSOR, NOT_LOGGED_IN, NOT_ALLOWED, NOT_FOUND = 4400, 4401, 4403, 4404
HEARTBEAT_SECONDS = 15.0
"""After so long a silence the figures are sent again: the page knows by it that the connection is alive."""
RETRY_SECONDS = 1.0


class RunConsumer(AsyncWebsocketConsumer):  # type: ignore[misc]  # channels has no types
    """Sends what happens in a run behind `?after=`, for as long as the person may read it."""

    feeding: asyncio.Task[None] | None = None

    async def connect(self) -> None:
        """Accept, so that the browser is told the code when it is then refused."""
        await self.accept()
        self.run_id = int(self.scope["url_route"]["kwargs"]["run_id"])
        after = _cursor(self.scope["query_string"])
        self.after = after or 0
        refusal = await self._refusal() or (BAD_CURSOR if after is None else 0)
        if refusal:
            await self.close(code=refusal)
        else:
            self.feeding = asyncio.create_task(self._feed())

    async def disconnect(self, code: int) -> None:
        if self.feeding is not None:
            self.feeding.cancel()

    async def _feed(self) -> None:
        """Follow the run until the socket closes; a database that is away is asked again after a pause."""
        while True:
            try:
                await self._follow()
                return
            except Exception as exc:  # the consumer's edge: the viewer waits where they are
                log.warning("run_not_followed", run=self.run_id, after=self.after, error=str(exc))
                await asyncio.sleep(RETRY_SECONDS)

    async def _follow(self) -> None:
        credential = Credential(self.scope["session"].session_key)
        with watcher_of_this_loop().watch(f"run-{self.run_id}", credential) as more:
            is_silent = True
            while more.refusal is None:
                more.clear()
                batch = await _shared_batch(self.run_id, self.after)
                if batch is not None:
                    await self.send(text_data=batch.html)  # the next is read only when this one is sent
                    self.after = batch.seq
                elif is_silent:
                    await self.send(text_data=await database_sync_to_async(figures)(self.run_id))
                if batch is None or not batch.has_more:
                    is_silent = not await _wait(more, HEARTBEAT_SECONDS)
            await self.close(code=NOT_LOGGED_IN if more.refusal is Refusal.LOGGED_OUT else NOT_ALLOWED)

    async def _refusal(self) -> int:
        """Why the socket must be closed, 0 if it need not. Session, person and role are read anew."""
        session = import_module(settings.SESSION_ENGINE).SessionStore(self.scope["session"].session_key)
        user = await get_user({"session": session})
        if not user.is_authenticated:
            return NOT_LOGGED_IN
        is_allowed = await database_sync_to_async(may_read)(user, f"run-{self.run_id}")
        return 0 if is_allowed else NOT_ALLOWED


class Nowhere(AsyncWebsocketConsumer):  # type: ignore[misc]  # channels has no types
    """Any other path: the handshake is refused."""

    async def connect(self) -> None:
        await self.close(code=NOT_FOUND)


_readings: dict[tuple[int, int], tuple[float, asyncio.Task[Batch | None]]] = {}


async def _shared_batch(run_id: int, after: int) -> Batch | None:
    """The next batch; viewers who ask for the same one at the same time wait for one reading of it in one thread."""
    asked_at, key = time.monotonic(), (run_id, after)
    while True:
        begun, reading = _readings.get(key) or (asked_at, None)
        if reading is None:
            begun = time.monotonic()
            reading = asyncio.create_task(database_sync_to_async(next_batch)(run_id, after, begun))
            _readings[key] = begun, reading
            reading.add_done_callback(lambda _: _readings.pop(key, None))
        batch = await asyncio.shield(reading)
        if batch is not None:
            return replace(batch, has_more=batch.has_more or begun < asked_at)
        if begun >= asked_at:
            return None


async def _wait(more: asyncio.Event, seconds: float) -> bool:
    """Whether there was a hint in that time."""
    try:
        async with asyncio.timeout(seconds):
            return await more.wait()
    except TimeoutError:
        return False


def _cursor(query: bytes) -> int | None:
    """The number in `?after=`, 0 without it, None when it is none."""
    text = QueryDict(query.decode("ascii", "replace")).get("after", "0")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else None
