"""HTTP/1.1 with the bounds that uvicorn's own parser lacks: of the head's size, and of the time for head and body.

httptools collects a header until its line ends, whatever its length, and uvicorn waits for the rest of a request for
ever. Both cost whoever sends them next to nothing.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol
from uvicorn.server import ServerState

from djinn.core.serving.crowd import Crowd

SHARED = "shared"
"""The peer of a Unix socket that has no door: everybody who comes that way."""
HEAD_PART = 8 * 1024
"""A head is parsed in such parts: the parser does not say how much of a part it has kept."""
WORDS = {
    400: b"This is no HTTP request.",
    408: b"The request took too long to arrive.",
    431: b"The request's head is too large.",
}


@dataclass(frozen=True)
class Bounds:
    """What a request may take."""

    head_bytes: int = 32 * 1024
    """Of address and headers together."""
    head_seconds: float = 10.0
    """From its connection, or from its first byte, until the head is whole."""
    body_seconds: float = 60.0
    """From then until the body is whole."""
    unread_bytes: int = 32 * 1024 * 1024
    """How much of a body is thrown away after it was answered already, so that its sender sees the answer."""


class _TooLarge(Exception):
    """The head is larger than it may be."""


class BoundedProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
        *,
        crowd: Crowd,
        bounds: Bounds,
        peer: str | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._crowd = crowd
        self._bounds = bounds
        self._peer = peer or ""
        self._deadline: asyncio.TimerHandle | None = None
        self._is_head_whole = False
        self._head_bytes = 0
        self._unexplained = 0
        """Bytes since the parser has last told anything: it collects them."""
        self._unread = 0

    # --- What a crowd knows -------------------------------------------------------------------------------------------
    @property
    def is_idle(self) -> bool:
        """Whether no request of it is being answered."""
        return self.cycle is None or self.cycle.response_complete

    @property
    def is_gone(self) -> bool:
        """Whether it is closed, or closing; one that became a WebSocket is told by its transport as well."""
        return self.transport.is_closing()

    def cut(self) -> None:
        """Close it at once, whatever has not been sent."""
        self.transport.abort()

    # --- The transport ------------------------------------------------------------------------------------------------
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        super().connection_made(transport)
        self._peer = self._peer or (self.client[0] if self.client else SHARED)
        self.app_state = {**self.app_state, "peer": self._peer}
        if self._crowd.admit(self._peer, self):
            self._expect(self._bounds.head_seconds)
        else:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._expect(None)
        self._crowd.leave(self._peer, self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        self._unset_keepalive_if_required()
        if self._deadline is None:
            self._expect(self._bounds.head_seconds)
        rest = memoryview(data)
        while rest and not self.transport.is_closing():
            part = rest if self._is_head_whole else rest[:HEAD_PART]
            rest = rest[len(part) :]
            if not self._feed(part):
                return

    def _feed(self, part: memoryview) -> bool:
        """Parse it; False when the connection is no longer ours to read."""
        self._unexplained += len(part)
        try:
            self.parser.feed_data(part)
        except httptools.HttpParserUpgrade:
            self._upgrade()
            return False
        except httptools.HttpParserError as exc:
            self._refuse(431 if isinstance(exc.__context__, _TooLarge) else 400)
        else:
            if self._unexplained > self._bounds.head_bytes:
                self._refuse(431)
            elif self._unread > self._bounds.unread_bytes:
                self.transport.close()
        return True

    # --- The parser ---------------------------------------------------------------------------------------------------
    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_head_whole, self._head_bytes = False, 0

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Of the head, or behind a body in chunks."""
        self._count(len(name) + len(value) + 4)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._unexplained = 0
        self._is_head_whole = True
        self._expect(self._bounds.body_seconds)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._unexplained = 0
        if self.cycle is not None and self.cycle.response_complete:
            self._unread += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unexplained = 0
        self._is_head_whole = False
        self._expect(None)
        super().on_message_complete()

    # --- Parts --------------------------------------------------------------------------------------------------------
    def _count(self, size: int) -> None:
        self._unexplained = 0
        self._head_bytes += size
        if self._head_bytes > self._bounds.head_bytes:
            raise _TooLarge

    def _expect(self, seconds: float | None) -> None:
        """What is being sent has so long from now; None: nothing is."""
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None if seconds is None else self.loop.call_later(seconds, self._too_late)

    def _too_late(self) -> None:
        self._deadline = None
        if self._is_head_whole or self.is_idle:
            self._refuse(408)
        else:  # the beginning of a next request, which is not read while this one is answered
            self._expect(self._bounds.head_seconds)

    def _upgrade(self) -> None:
        self._expect(None)
        if self._should_upgrade():
            self.handle_websocket_upgrade()
        else:
            self._refuse(400)

    def _refuse(self, status: int) -> None:
        """Say why, unless an answer is under way, and close. Not logged: whoever sends such things sends many."""
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            words = WORDS[status]
            head = b"content-type: text/plain\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(words)
            self.transport.write(STATUS_LINE[status] + head + words)
        self._expect(None)
        self.transport.close()
