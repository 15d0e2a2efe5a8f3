"""A proxy before PostgreSQL that speaks enough of its protocol to lose exactly one answer: that of a COMMIT.

It listens on a Unix socket as PostgreSQL would and passes everything on. The messages are those of version 3.0 of the
protocol ("Frontend/Backend Protocol" in PostgreSQL's documentation): after the start-up packet each is one byte of
type, four bytes of length, and a body.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
import threading
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote

SOCKET_NAME = ".s.PGSQL.5432"
SSL_REQUEST, GSS_REQUEST = 80877103, 80877104
CHUNK = 65536
WRITES = (b"INSERT", b"UPDATE", b"DELETE", b"MERGE")

Lost = Literal["commit", "write"]
"""Which answer is lost: that of an explicit COMMIT, or that of a statement which writes and commits by itself."""


class Messages:
    """Cuts a stream of bytes into messages: (type, body). Bytes that are no whole message yet wait for the rest."""

    def __init__(self) -> None:
        self._rest = b""

    def take(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        buffer, position = self._rest + data, 0
        while len(buffer) - position >= 5:
            (length,) = struct.unpack_from("!I", buffer, position + 1)
            if len(buffer) - position < 1 + length:
                break
            yield buffer[position : position + 1], buffer[position + 5 : position + 1 + length]
            position += 1 + length
        self._rest = buffer[position:]


class Answers:
    """Reads what the server says, and knows at which message a transaction has surely become durable."""

    def __init__(self) -> None:
        self._messages = Messages()
        self._has_written = False
        self._was_committed = False

    def durable(self, data: bytes) -> set[Lost]:
        """What these bytes are the acknowledgement of: a COMMIT, or a write that committed by itself.

        The tag COMMIT comes after the commit. A write outside of a transaction commits before the server says that it
        is ready and idle.
        """
        found: set[Lost] = set()
        for kind, body in self._messages.take(data):
            if kind == b"C":
                if body.startswith(b"COMMIT"):
                    found.add("commit")
                    self._has_written = False
                elif body.startswith(WRITES):
                    self._has_written = True
                elif body.startswith((b"BEGIN", b"ROLLBACK")):
                    self._has_written = False
            elif kind == b"E":
                self._has_written = False
            elif kind == b"Z" and body == b"I":
                if self._has_written:
                    found.add("write")
                self._has_written = False
        return found


@dataclass(eq=False)
class _Link:
    """One connection of a client through the proxy, and its two ends."""

    client: asyncio.StreamWriter
    server: asyncio.StreamWriter
    answers: Answers = field(default_factory=Answers)

    def cut(self) -> None:
        for end in (self.client, self.server):
            if end.transport is not None:
                end.transport.abort()


class Proxy:
    """Listens in `directory` and passes on to the server in `upstream`; both are folders of PostgreSQL's sockets.

    Has a thread of its own. Everything that hurts may be called from any thread and returns at once.
    """

    def __init__(self, *, directory: Path, upstream: Path) -> None:
        self.directory = directory
        self.lost: dict[Lost, int] = {"commit": 0, "write": 0}
        self._upstream = upstream / SOCKET_NAME
        self._links: set[_Link] = set()
        self._to_lose: list[Lost] = []
        self._delay = 0.0
        self._is_open = asyncio.Event()
        self._is_open.set()
        self._refuses = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self._server: asyncio.Server | None = None

    def url(self, database: str) -> str:
        """The database's URL through this proxy."""
        return f"postgresql://postgres:@/{database}?host={quote(str(self.directory), safe='')}"

    def start(self) -> None:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._thread.start()
        self._await(self._listen())

    def stop(self) -> None:
        self._await(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    # --- what hurts ---------------------------------------------------------------------------------------------------
    def lose_next(self, what: Lost) -> None:
        """Let the next such statement reach the server and take effect, and cut the connection before its answer."""
        self._loop.call_soon_threadsafe(self._to_lose.append, what)

    def forget_losses(self) -> None:
        """Lose nothing more of what was asked for and has not come."""
        self._loop.call_soon_threadsafe(self._to_lose.clear)

    def delay(self, seconds: float) -> None:
        """Hold everything back that long, in both directions, from now on; 0 for not at all."""
        self._loop.call_soon_threadsafe(setattr, self, "_delay", seconds)

    def blackhole(self, *, on: bool) -> None:
        """Swallow nothing and answer nothing: bytes wait until the hole is closed again."""
        self._loop.call_soon_threadsafe(self._is_open.clear if on else self._is_open.set)

    def refuse(self, *, on: bool) -> None:
        """Close new connections at once."""
        self._loop.call_soon_threadsafe(setattr, self, "_refuses", on)

    def reset(self) -> None:
        """Cut every connection there is."""
        self._loop.call_soon_threadsafe(self._reset)

    def connections(self) -> int:
        return len(self._links)

    # --- in the loop --------------------------------------------------------------------------------------------------
    def _await(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    async def _listen(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, path=self.directory / SOCKET_NAME)

    async def _close(self) -> None:
        assert self._server is not None
        self._server.close()
        self._reset()
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _reset(self) -> None:
        for link in list(self._links):
            link.cut()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self._refuses:
                raise ConnectionRefusedError
            await self._is_open.wait()
            await self._start_up(reader, writer)
        except (OSError, EOFError, asyncio.CancelledError):
            pass  # the client, the server or this proxy has gone: so does the connection
        finally:
            writer.transport.abort()

    async def _start_up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass the start-up packet on; the server behind a Unix socket wants no encryption, so we decline it for it."""
        packet = await _packet(reader)
        while len(packet) == 8 and struct.unpack_from("!I", packet, 4)[0] in {SSL_REQUEST, GSS_REQUEST}:
            writer.write(b"N")
            packet = await _packet(reader)
        from_server, to_server = await asyncio.open_unix_connection(self._upstream)
        link = _Link(writer, to_server)
        self._links.add(link)
        try:
            to_server.write(packet)
            directions = (self._pump(reader, to_server, None), self._pump(from_server, writer, link))
            tasks = [asyncio.ensure_future(direction) for direction in directions]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            self._links.discard(link)
            link.cut()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, link: _Link | None) -> None:
        """Pass on until one end is gone. `link` is given in the direction from the server."""
        while data := await reader.read(CHUNK):
            if self._delay:
                await asyncio.sleep(self._delay)
            await self._is_open.wait()
            if link is not None and self._loses(link.answers.durable(data)):
                link.cut()
                return
            writer.write(data)
            await writer.drain()

    def _loses(self, durable: set[Lost]) -> bool:
        for what in durable.intersection(self._to_lose):
            self._to_lose.remove(what)
            self.lost[what] += 1
            return True
        return False


async def _packet(reader: asyncio.StreamReader) -> bytes:
    """A start-up packet: length, code and parameters, without a type."""
    head = await reader.readexactly(4)
    (length,) = struct.unpack("!I", head)
    return head + await reader.readexactly(length - 4)


@contextlib.contextmanager
def proxy(*, directory: Path, upstream: Path) -> Iterator[Proxy]:
    """A running proxy."""
    running = Proxy(directory=directory, upstream=upstream)
    running.start()
    try:
        yield running
    finally:
        running.stop()
