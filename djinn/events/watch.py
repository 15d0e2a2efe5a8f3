"""Watching streams from the event loop of a web process: one subscription and one poll for all its viewers.

    watcher = watcher_of_this_loop()
    with watcher.watch("run-7", credential) as more:
        while more.refusal is None:
            ... read the log after the last seq ...
            await more.wait(); more.clear()

Hints come through the Channels layer. The poll, every 2 s and a few queries for all watched streams, finds what a lost
hint did not tell, for example while Redis is away, and who may not read on: their token was revoked, their session has
ended, their role was taken.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum

import structlog
from channels.db import database_sync_to_async
from channels.layers import get_channel_layer

from djinn.accounts.credentials import Credential, people_of
from djinn.events.access import may_read
from djinn.events.hints import GROUP
from djinn.events.log import last_seqs

log = structlog.get_logger(__name__)

POLL_SECONDS = 2.0
RETRY_SECONDS = 1.0


class Refusal(StrEnum):
    """Why somebody may not read on."""

    LOGGED_OUT = "logged out"
    NOT_ALLOWED = "not allowed"


class Viewer(asyncio.Event):
    """One who watches a stream: set whenever there may be more, and when `refusal` says that they must stop."""

    def __init__(self, stream: str, credential: Credential | None) -> None:
        super().__init__()
        self.stream = stream
        self.credential = credential
        self.refusal: Refusal | None = None


class Watcher:
    """The viewers of one event loop."""

    def __init__(self) -> None:
        self._viewers: dict[str, set[Viewer]] = {}
        self._seen: dict[str, int] = {}
        self._tasks: list[asyncio.Task[None]] = []

    @contextmanager
    def watch(self, stream: str, credential: Credential | None = None) -> Iterator[Viewer]:
        """Set whenever the stream may have more, also at the start. Without a credential nobody asks who watches."""
        more = Viewer(stream, credential)
        more.set()
        self._viewers.setdefault(stream, set()).add(more)
        self._ensure_running()
        try:
            yield more
        finally:
            self._viewers[stream].discard(more)
            if not self._viewers[stream]:
                del self._viewers[stream]
                self._seen.pop(stream, None)

    def _ensure_running(self) -> None:
        if not self._tasks or any(task.done() for task in self._tasks):
            for task in self._tasks:
                task.cancel()
            self._tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._poll())]

    def _wake(self, streams: list[str]) -> None:
        for stream in streams:
            for more in self._viewers.get(stream, ()):
                more.set()

    async def _listen(self) -> None:
        layer = get_channel_layer()
        while True:
            try:
                channel = await layer.new_channel()
                await layer.group_add(GROUP, channel)
                self._wake(list(self._viewers))  # what was hinted while nobody listened
                while True:
                    message = await layer.receive(channel)
                    self._wake(message["streams"])
            except Exception as exc:  # the listener's edge: the poll carries on while it connects again
                log.warning("hints_not_heard", error=str(exc))
                await asyncio.sleep(RETRY_SECONDS)

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            if not self._viewers:
                continue
            try:
                await self._dismiss()
                newest = await database_sync_to_async(last_seqs)(list(self._viewers))
            except Exception as exc:  # the poll's edge: the database may be restarting
                log.warning("streams_not_polled", error=str(exc))
                continue
            self._wake([stream for stream, seq in newest.items() if seq != self._seen.get(stream)])
            self._seen = newest

    async def _dismiss(self) -> None:
        """Tell those who may not read on."""
        viewers = [one for ones in self._viewers.values() for one in ones if one.credential and not one.refusal]
        refused = await database_sync_to_async(_refused)({(one.credential, one.stream) for one in viewers})
        for viewer in viewers:
            if refusal := refused.get((viewer.credential, viewer.stream)):
                viewer.refusal = refusal
                viewer.set()


Seat = tuple[Credential | None, str]


def _refused(seats: set[Seat]) -> dict[Seat, Refusal]:
    people = people_of({credential for credential, _ in seats if credential is not None})
    found: dict[Seat, Refusal] = {}
    for seat in seats:
        person = people.get(seat[0]) if seat[0] is not None else None
        if person is None:
            found[seat] = Refusal.LOGGED_OUT
        elif not may_read(person, seat[1]):
            found[seat] = Refusal.NOT_ALLOWED
    return found


_watchers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Watcher] = weakref.WeakKeyDictionary()


def watcher_of_this_loop() -> Watcher:
    """The running loop's watcher, made at the first call."""
    return _watchers.setdefault(asyncio.get_running_loop(), Watcher())
