"""Who is connected: so many in all, so many of one peer, and when it is full the greediest makes room."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Connection(Protocol):
    """What a crowd knows of a connection."""

    @property
    def is_idle(self) -> bool:
        """Whether no request of it is being answered."""

    @property
    def is_gone(self) -> bool:
        """Whether it is closed, or closing."""

    def cut(self) -> None:
        """Close it at once."""


class Crowd:
    """The open connections of one server, by peer. Belongs to one event loop."""

    def __init__(self, *, most: int, most_of_one: int) -> None:
        self.most = most
        self.most_of_one = most_of_one
        self.left: Callable[[str], None] = lambda peer: None
        """Told which peer has a connection less."""
        self._peers: dict[str, dict[Connection, None]] = {}
        self._count = 0

    def count_of(self, peer: str) -> int:
        """How many connections the peer has."""
        return len(self._peers.get(peer, ()))

    def admit(self, peer: str, connection: Connection) -> bool:
        """Count the connection in, when need be in the place of an idle one of a greedier peer; False: no room."""
        if self.count_of(peer) >= self.most_of_one or (self._count >= self.most and not self._make_room(peer)):
            return False
        self._peers.setdefault(peer, {})[connection] = None
        self._count += 1
        return True

    def leave(self, peer: str, connection: Connection) -> None:
        """Count the connection out; again is no error."""
        ours = self._peers.get(peer, {})
        if connection not in ours:
            return
        del ours[connection]
        self._count -= 1
        if not ours:
            del self._peers[peer]
        self.left(peer)

    def dismiss(self, peer: str) -> None:
        """Close all connections of the peer."""
        for connection in list(self._peers.get(peer, ())):
            self._send_away(peer, connection)

    def _make_room(self, newcomer: str) -> bool:
        for peer in list(self._peers):
            for gone in [one for one in self._peers[peer] if one.is_gone]:
                self.leave(peer, gone)
        if self._count < self.most:
            return True
        enough = self.count_of(newcomer) + 1
        for peer in sorted(self._peers, key=self.count_of, reverse=True):
            if self.count_of(peer) <= enough:
                return False
            oldest = next((one for one in self._peers[peer] if one.is_idle), None)
            if oldest is not None:
                self._send_away(peer, oldest)
                return True
        return False

    def _send_away(self, peer: str, connection: Connection) -> None:
        self.leave(peer, connection)
        connection.cut()
