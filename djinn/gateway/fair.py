"""What one container may ask at once, so that the others are answered meanwhile.

Who asks is known before a token was read: by the door through which they came (`core/serving/doors.py`). Whoever has
had enough waits for their own turn; only what waits too long is refused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from djinn.core.body import Application, Message, Receive, Scope, Send, refuse, stated_length
from djinn.core.serving.pace import Pace
from djinn.core.serving.protocol import SHARED

REQUESTS_PER_SECOND, REQUESTS_AT_ONCE = 30, 60
BYTES_PER_SECOND, BYTES_AT_ONCE = 4 * 1024**2, 16 * 1024**2
LARGE_BYTES = 256 * 1024
LARGE_AT_ONCE = 2
"""So many large bodies of one container arrive at once."""
HELD_BYTES, HELD_BYTES_OF_ONE = 256 * 1024**2, 64 * 1024**2
"""Of large bodies that arrive, and of those whose answers are under way: they are never written to a disk, where they
would keep the database waiting. What is made of them takes several times as much memory."""
PATIENCE_SECONDS = 20.0


class _Peer:
    """What one container has under way."""

    def __init__(self) -> None:
        self.requests = Pace(per_second=REQUESTS_PER_SECOND, at_once=REQUESTS_AT_ONCE)
        self.bytes = Pace(per_second=BYTES_PER_SECOND, at_once=BYTES_AT_ONCE)
        self.arriving = asyncio.Semaphore(LARGE_AT_ONCE)
        self.held = 0
        self.open = 0


class Fairness:
    """The peers of one event loop."""

    def __init__(self) -> None:
        self._peers: dict[str, _Peer] = {}
        self._held = 0
        self._freed = asyncio.Condition()

    def around(self, application: Application) -> Application:
        """The ASGI application, asked by each peer so often and with so much at once."""

        async def served(scope: Scope, receive: Receive, send: Send) -> None:
            with self._present(scope.get("state", {}).get("peer", SHARED)) as peer:
                await asyncio.sleep(peer.requests.take())
                length = stated_length(scope)
                if length is not None and length <= LARGE_BYTES:
                    await application(scope, receive, send)
                else:
                    await self._large(application, scope, receive, send, peer)

        return served

    async def _large(self, application: Application, scope: Scope, receive: Receive, send: Send, peer: _Peer) -> None:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await peer.arriving.acquire()
        except TimeoutError:
            await refuse(send, 429, "busy", f"{LARGE_AT_ONCE} large requests of yours are arriving. Try again later.")
            return
        body = _Body(self, peer, receive)
        try:
            await application(scope, body.receive, send)
            if body.is_refused:
                await refuse(send, 503, "busy", "There are too many large requests under way. Try again later.")
        finally:
            await body.end()

    async def hold(self, peer: _Peer, size: int) -> bool:
        """Hold so much memory once there is room; False when there was none for long."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS), self._freed:
                await self._freed.wait_for(lambda: self._fits(peer.held + size, size))
                self._held += size
                peer.held += size
        except TimeoutError:
            return False
        return True

    def _fits(self, of_one: int, more: int) -> bool:
        """Whether there is room, or the peer has less than an equal share: those who have more cannot keep it out."""
        share = HELD_BYTES / max(1, sum(1 for one in self._peers.values() if one.open))
        return of_one <= HELD_BYTES_OF_ONE and (self._held + more <= HELD_BYTES or of_one <= share)

    async def free(self, peer: _Peer, size: int) -> None:
        """Give back what was held."""
        self._held -= size
        peer.held -= size
        async with self._freed:
            self._freed.notify_all()

    @contextmanager
    def _present(self, name: str) -> Iterator[_Peer]:
        """The peer; forgotten some time after its last request."""
        peer = self._peers.setdefault(name, _Peer())
        peer.open += 1
        try:
            yield peer
        finally:
            peer.open -= 1
            if not peer.open and len(self._peers) > 1000:
                self._peers = {name: one for name, one in self._peers.items() if one.open}


class _Body:
    """A large body on its way: it arrives at its peer's rate, as far as there is memory for it."""

    def __init__(self, fairness: Fairness, peer: _Peer, receive: Receive) -> None:
        self._fairness = fairness
        self._peer = peer
        self._receive = receive
        self._held = 0
        self._is_arriving = True
        self.is_refused = False

    async def receive(self) -> Message:
        """The next part. When it has waited too long for memory, the application is told that nobody asks any more."""
        message = await self._receive()
        if not self._is_arriving or message["type"] != "http.request":
            return message
        size = len(message.get("body", b""))
        await asyncio.sleep(self._peer.bytes.take(size))
        if not await self._fairness.hold(self._peer, size):
            self.is_refused = True
            return {"type": "http.disconnect"}
        self._held += size
        if not message.get("more_body"):
            self._arrived()
        return message

    async def end(self) -> None:
        """Give back everything."""
        self._arrived()
        await self._fairness.free(self._peer, self._held)

    def _arrived(self) -> None:
        if self._is_arriving:
            self._is_arriving = False
            self._peer.arriving.release()
