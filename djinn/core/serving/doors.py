"""A Unix socket for each who may come in, in a folder that only they are given.

A socket for all has one queue: whoever fills it keeps everybody out, and nothing tells whose a connection is. Here
the folder's name is the peer, before a byte was read. What one peer has too many of waits in the kernel's queue of that
peer's own socket, and costs nothing.

    doors/17/gateway.sock      made by the server when the folder `doors/17` appears, gone with it
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path

import structlog

from djinn.core.serving.crowd import Crowd
from djinn.core.serving.pace import Pace

log = structlog.get_logger(__name__)

SOCKET_NAME = "gateway.sock"
LOOK_SECONDS = 0.05
LOOK_ANYWAY_SECONDS = 1.0
"""Two changes within one tick of the file system's clock look like one."""
QUEUE = 64
AT_ONCE = 16
"""So many are accepted of one door before the next one's turn."""
ACCEPTED_PER_SECOND, ACCEPTED_AT_ONCE = 100, 100
RETRY_SECONDS = 1.0

MakeProtocol = Callable[[str], asyncio.Protocol]


class Doors:
    """The open doors of a folder. Belongs to one event loop."""

    def __init__(self, folder: Path, make_protocol: MakeProtocol, crowd: Crowd) -> None:
        self._folder = folder
        self._make = make_protocol
        self._crowd = crowd
        self._open: dict[str, _Door] = {}
        crowd.left = self._left

    async def tend(self) -> None:
        """Open and close doors as folders come and go, for ever."""
        seen, looked = 0, 0.0
        loop = asyncio.get_running_loop()
        while True:
            try:
                changed = self._folder.stat().st_mtime_ns
                if changed != seen or loop.time() > looked + LOOK_ANYWAY_SECONDS:
                    seen, looked = changed, loop.time()
                    self._look({entry.name for entry in self._folder.iterdir() if entry.is_dir()})
            except OSError as exc:
                log.warning("doors_not_tended", error=str(exc))
                await asyncio.sleep(RETRY_SECONDS)
            await asyncio.sleep(LOOK_SECONDS)

    def close(self) -> None:
        """Take no more connections."""
        for name in list(self._open):
            self._open.pop(name).close()

    def _look(self, names: set[str]) -> None:
        for name in self._open.keys() - names:
            self._open.pop(name).close()
            self._crowd.dismiss(name)
        for name in names - self._open.keys():
            try:
                self._open[name] = _Door(self._folder / name, self._make, self._crowd)
            except FileNotFoundError:
                continue  # it went while we looked

    def _left(self, peer: str) -> None:
        if peer in self._open:
            self._open[peer].listen()


class _Door:
    """One listening socket: takes so many connections a second, and none while its peer has enough."""

    def __init__(self, folder: Path, make_protocol: MakeProtocol, crowd: Crowd) -> None:
        self._name = folder.name
        self._make = make_protocol
        self._crowd = crowd
        self._loop = asyncio.get_running_loop()
        self._pace = Pace(per_second=ACCEPTED_PER_SECOND, at_once=ACCEPTED_AT_ONCE)
        self._arriving: set[asyncio.Task[None]] = set()
        self._pause: asyncio.TimerHandle | None = None
        self._is_listening = self._is_closed = False
        self._socket = _listening(folder / SOCKET_NAME)
        self.listen()

    def listen(self) -> None:
        """Take connections, unless it is paused or its peer has enough."""
        if not (self._is_listening or self._is_closed or self._pause) and self._has_room():
            self._loop.add_reader(self._socket.fileno(), self._accept)
            self._is_listening = True

    def close(self) -> None:
        """Take no more."""
        self._deafen()
        self._is_closed = True
        self._socket.close()

    def _accept(self) -> None:
        for _ in range(AT_ONCE):
            if not self._has_room():
                self._deafen()
                return
            if wait := self._pace.wait_seconds():
                self._rest(wait)
                return
            try:
                accepted, _ = self._socket.accept()
            except BlockingIOError:
                return
            except OSError as exc:
                log.warning("door_not_opened", door=self._name, error=str(exc))
                self._rest(RETRY_SECONDS)
                return
            self._pace.take()
            accepted.setblocking(False)
            arriving = self._loop.create_task(self._receive(accepted))
            self._arriving.add(arriving)
            arriving.add_done_callback(self._arriving.discard)

    async def _receive(self, accepted: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(lambda: self._make(self._name), accepted)
        except OSError as exc:
            accepted.close()
            log.warning("connection_not_taken", door=self._name, error=str(exc))

    def _has_room(self) -> bool:
        return self._crowd.count_of(self._name) + len(self._arriving) < self._crowd.most_of_one

    def _rest(self, seconds: float) -> None:
        self._deafen()
        self._pause = self._loop.call_later(seconds, self._go_on)

    def _go_on(self) -> None:
        self._pause = None
        self.listen()

    def _deafen(self) -> None:
        if self._is_listening:
            self._loop.remove_reader(self._socket.fileno())
            self._is_listening = False


def _listening(path: Path) -> socket.socket:
    """A socket that everybody who is given its folder may connect to. It listens before it has its name."""
    fresh = path.with_name(".new")
    fresh.unlink(missing_ok=True)
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        opened.setblocking(False)
        opened.bind(str(fresh))
        fresh.chmod(0o666)
        opened.listen(QUEUE)
        fresh.rename(path)
    except OSError:
        opened.close()
        raise
    return opened
