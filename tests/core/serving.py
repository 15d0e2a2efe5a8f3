"""Real server processes of ours on the test database."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import httpx2
from django.db import connection

from djinn.core.installation.processes import Process, Supervisor

PROJECT = Path(__file__).resolve().parents[2]


def database_url() -> str:
    """Where the present test's rows are."""
    return urlunsplit(urlsplit(os.environ["DATABASE_URL"])._replace(path="/" + str(connection.settings_dict["NAME"])))


@contextmanager
def serving(module: str, folder: Path, **environment: str) -> Iterator[httpx2.Client]:
    """A client of `module`'s ASGI application, served on a Unix socket in the folder, with doors in `folder/doors`."""
    path, doors = folder / "s", folder / "doors"
    doors.mkdir(exist_ok=True)
    command = (sys.executable, "-m", "djinn.core.serving", f"{module}:application", "--uds", str(path),
               "--doors", str(doors))  # fmt: skip
    variables = {"DATABASE_URL": database_url(), "DJINN_ALLOWED_HOSTS": "web", **environment}
    supervisor = Supervisor(directory=PROJECT, logs=folder)
    transport = httpx2.HTTPTransport(uds=str(path))
    with httpx2.Client(transport=transport, base_url="http://web", timeout=30) as client:
        supervisor.start(Process("server", command, variables, is_ready=lambda: _answers(path)))
        try:
            supervisor.wait_ready("server", timeout_seconds=60)
            yield client
        finally:
            supervisor.stop()


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2)
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True
