"""Hints that a stream has more: sent by whoever appended, lost without harm.

A hint carries the stream's name and nothing else. It goes through the Channels layer from one thread a process, which
owns the event loop that the layer's connections live on; a stream that is hinted often is hinted once every few
milliseconds. Whoever watches a stream reads the log, and looks again by itself when no hint came (`watch.py`).
"""

from __future__ import annotations

import asyncio
import threading
import time

import structlog
from channels.layers import get_channel_layer

from djinn.core.faults import fault

log = structlog.get_logger(__name__)

GROUP = "streams"
PAUSE_SECONDS = 0.005
WARN_EVERY_SECONDS = 30.0


def send(stream: str) -> None:
    """Tell all watchers that the stream has more; returns at once and never raises."""
    _sender.ring(stream)


class _Sender:
    """The process's one sending thread with its event loop, started at the first hint. A daemon: it holds nobody up."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: set[str] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake = asyncio.Event()

    def ring(self, stream: str) -> None:
        with self._lock:
            self._waiting.add(stream)
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=self._run, args=(self._loop,), name="hints", daemon=True).start()
            self._loop.call_soon_threadsafe(self._wake.set)

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        loop.run_until_complete(self._send_for_ever())

    async def _send_for_ever(self) -> None:
        warned = 0.0
        while True:
            await self._wake.wait()
            self._wake.clear()
            with self._lock:
                streams, self._waiting = sorted(self._waiting), set()
            try:
                fault("hint.before_publish")
                async with asyncio.timeout(2):
                    await get_channel_layer().group_send(GROUP, {"type": "streams.more", "streams": streams})
            except Exception as exc:  # the edge of this thread: a lost hint costs a viewer 2 s, a dead thread all hints
                if time.monotonic() > warned + WARN_EVERY_SECONDS:
                    warned = time.monotonic()
                    log.warning("hints_not_sent", error=str(exc))
            await asyncio.sleep(PAUSE_SECONDS)


_sender = _Sender()
