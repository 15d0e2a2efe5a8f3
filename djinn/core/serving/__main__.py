"""Serves an ASGI application: `python -m djinn.core.serving djinn.asgi:application --host 127.0.0.1 --port 8000`."""

from __future__ import annotations

import argparse
import asyncio
import os
import resource
import socket
import sys
from collections.abc import Sequence
from functools import partial
from ipaddress import ip_network
from pathlib import Path

import uvicorn

from djinn.core.serving.crowd import Crowd
from djinn.core.serving.doors import Doors
from djinn.core.serving.protocol import BoundedProtocol, Bounds

MOST_FILES = 65_536
SHARE_FOR_CONNECTIONS = 0.6
"""Of the files that the process may open; the rest is for doors, providers, database and Redis."""
MOST_OF_ONE_PEER = 64
"""Connections of one container."""
LARGEST_SOCKET_MESSAGE = 64 * 1024
"""Of what a browser sends through a WebSocket, which is nothing."""
GRACE_SECONDS = 2


class BoundedServer(uvicorn.Server):
    """uvicorn, whose connections are bounded by their peer; with doors when there is a folder of them."""

    def __init__(self, config: uvicorn.Config, *, doors: Path | None) -> None:
        super().__init__(config)
        most = int(_open_files() * SHARE_FOR_CONNECTIONS)
        self._crowd = Crowd(most=most, most_of_one=MOST_OF_ONE_PEER if doors else most)
        self._folder = doors
        self._doors: Doors | None = None
        self._tending: asyncio.Task[None] | None = None
        config.load()
        config.http_protocol_class = partial(  # type: ignore[assignment]  # it is called, nothing else
            BoundedProtocol, crowd=self._crowd, bounds=Bounds()
        )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self._folder is not None:
            self._doors = Doors(self._folder, self._protocol_of, self._crowd)
            self._tending = asyncio.create_task(self._doors.tend())

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        if self._doors is not None and self._tending is not None:
            self._tending.cancel()
            self._doors.close()
        await super().shutdown(sockets)

    def _protocol_of(self, peer: str) -> asyncio.Protocol:
        return BoundedProtocol(
            self.config, self.server_state, self.lifespan.state, crowd=self._crowd, bounds=Bounds(), peer=peer
        )


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m djinn.core.serving", description=__doc__)
    parser.add_argument("application", help="module:name")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--uds", metavar="PATH", help="a Unix socket instead of host and port")
    parser.add_argument("--doors", metavar="FOLDER", type=Path, help="whose every folder gets a Unix socket of its own")
    options = parser.parse_args(arguments)
    try:
        proxies = trusted_proxies(os.environ.get("DJINN_TRUSTED_PROXIES", ""))
    except ValueError as exc:
        parser.error(f"DJINN_TRUSTED_PROXIES: {exc}")
    config = uvicorn.Config(
        options.application,
        host=options.host,
        port=options.port,
        uds=options.uds,
        access_log=False,
        lifespan="off",
        log_level="warning",
        timeout_graceful_shutdown=GRACE_SECONDS,
        ws_max_size=LARGEST_SOCKET_MESSAGE,
        proxy_headers=bool(proxies),
        forwarded_allow_ips=proxies,
    )
    BoundedServer(config, doors=options.doors).run()
    return 0


def trusted_proxies(text: str) -> list[str]:
    """The networks whose X-Forwarded-For and -Proto are believed, none unless said; raises ValueError for others."""
    return [str(ip_network(part.strip())) for part in text.split(",") if part.strip()]


def _open_files() -> int:
    """How many files this process may open, once it may open as many as it can."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, MOST_FILES)
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
