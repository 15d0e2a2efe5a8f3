"""The whole stack on one machine: PostgreSQL, Redis, gateway, web, two workers and beat, as children of one process."""

from __future__ import annotations

import fcntl
import http.client
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path

from djinn.core.installation import servers
from djinn.core.installation.environment import PROVIDERS_WITH_KEYS, keys_in
from djinn.core.installation.paths import PROJECT, Installation
from djinn.core.installation.processes import Process, Supervisor

DEFAULT_PORT = 8000
SERVERS = ("postgres", "redis")
CONTROL = ("-Q", "control", "-c", "4", "-n", "control@%h", "--prefetch-multiplier", "50")
"""Celery looks for messages when its loop turns, and a task that ends in a thread turns nothing: a worker that fetches
only what it has threads for does four tasks a second once messages wait. What a dead worker had fetched is rung again.
"""


class AlreadyRunning(Exception):
    """Another process runs the stack of this installation."""


class PortTaken(Exception):
    """Another program listens on the port that the dashboard was to have."""


class Stack:
    """Starts and stops everything that an installation needs. Use as a context manager: leaving it stops all."""

    def __init__(
        self, installation: Installation, *, port: int, host_name: str, executions_per_worker: int = 50
    ) -> None:
        self.installation = installation
        self.port = port
        self._host_name = host_name
        self._executions = executions_per_worker
        self._lock: int | None = None
        self._has_processes = False
        installation.make_directories()
        self.url = f"http://127.0.0.1:{port}"
        self.supervisor = Supervisor(directory=PROJECT, logs=installation.logs, is_excused=self._is_without_servers)

    def __enter__(self) -> Stack:
        self._take_lock()
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._stop()
        finally:
            if self._lock is not None:
                os.close(self._lock)

    def _stop(self) -> None:
        """Workers first, then the containers that they left running, then the servers."""
        self.supervisor.stop(but=SERVERS)
        if self._has_processes:
            _remove_containers()
        self.supervisor.stop()
        gateway = self.installation.gateway_directory / "gateway.sock"
        for leftover in (self.installation.redis_socket, gateway, *self.installation.doors.glob("*/gateway.sock")):
            leftover.unlink(missing_ok=True)

    def start_servers(self) -> None:
        """Start PostgreSQL and Redis, each unless the environment names another one, and make the database."""
        started = []
        if "DATABASE_URL" not in os.environ:
            server, url = servers.postgres_server(self.installation), self.installation.database_url
            self.supervisor.start(_process(server, stop=signal.SIGINT, ready=lambda: servers.postgres_answers(url)))
            started.append(server.name)
        if "REDIS_URL" not in os.environ:
            server, redis_url = servers.redis_server(self.installation), self.installation.redis_url
            self.supervisor.start(_process(server, stop=signal.SIGTERM, ready=lambda: servers.redis_answers(redis_url)))
            started.append(server.name)
        self.supervisor.wait_ready(*started, timeout_seconds=30)
        if "postgres" in started:
            servers.ensure_database(self.installation.database_url)

    def start_processes(self, *, environment: dict[str, str]) -> None:
        """Start the processes of Djinn and wait until each of them is ready. The gateway alone gets providers' keys."""
        self._has_processes = True
        keys = keys_in(os.environ)
        self.installation.providers_file.write_text(",".join(keys.providers), encoding="utf-8")
        shared = {**environment, PROVIDERS_WITH_KEYS: ",".join(keys.providers)}
        processes = self._processes(shared, {**shared, **keys.values})
        for process in processes:
            self.supervisor.start(process)
        self.supervisor.wait_ready(*(process.name for process in processes), timeout_seconds=60)
        self.installation.url_file.write_text(self.url, encoding="ascii")

    def _processes(self, shared: dict[str, str], with_keys: dict[str, str]) -> list[Process]:
        socket_path, ready = self.installation.gateway_directory / "gateway.sock", self.installation.ready
        queues = f"agents,agents@{self._host_name}"
        agents = ("worker", "-Q", queues, "-c", str(self._executions), "-n", "agents@%h", "--disable-prefetch")
        doors = str(self.installation.doors)
        page = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
        return [
            Process("gateway", _served("djinn.gateway.asgi", "--uds", str(socket_path), "--doors", doors), with_keys,
                    is_ready=lambda: _answers(_UnixConnection(socket_path), "/healthz")),
            Process("web", _served("djinn.asgi", "--host", "127.0.0.1", "--port", str(self.port)), shared,
                    is_ready=lambda: _answers(page, "/healthz")),
            Process("control", _celery("worker", *CONTROL), shared, ready_file=ready / "control"),
            Process("agents", _celery(*agents), shared, ready_file=ready / "agents"),
            Process("beat", _celery("beat", "--pidfile="), shared, ready_file=ready / "beat"),
        ]  # fmt: skip

    def _is_without_servers(self) -> bool:
        """Whether PostgreSQL or Redis is away: what dies of that is started again until they are back."""
        database = os.environ.get("DATABASE_URL", self.installation.database_url)
        return servers.is_away(database, os.environ.get("REDIS_URL", self.installation.redis_url))

    def _take_lock(self) -> None:
        handle = os.open(self.installation.home / "stack.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            os.close(handle)
            raise AlreadyRunning(f"the stack of {self.installation.home} is running already") from exc
        self._lock = handle


def _remove_containers() -> None:
    """Remove what the workers left running; a later start finds those executions lost and tries their steps again."""
    from django.core.management import call_command

    call_command("remove_containers")


def is_running(installation: Installation) -> bool:
    """Whether some process runs the stack of this installation now."""
    try:
        with Stack(installation, port=0, host_name=""):
            return False
    except AlreadyRunning:
        return True


def free_port(preferred: int) -> int:
    """The preferred TCP port on loopback, or any free one when it is taken."""
    return preferred if preferred and is_free(preferred) else _any_port()


def wanted_port(port: int) -> int:
    """That port, any free one for 0; raises `PortTaken` when another program listens there."""
    if port == 0:
        return _any_port()
    if is_free(port):
        return port
    raise PortTaken(f"Port {port} of 127.0.0.1 is taken by another program. Choose another: make up PORT={port + 1}")


def is_free(port: int) -> bool:
    """Whether a server could listen on that TCP port of loopback now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _any_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=2)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def _process(server: servers.Server, *, stop: int, ready: Callable[[], bool]) -> Process:
    return Process(server.name, server.command, user=server.user, group=server.group, stop_signal=stop, is_ready=ready)


def _served(module: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "djinn.core.serving", f"{module}:application", *arguments)


def _celery(*arguments: str) -> tuple[str, ...]:
    worker_options = ("--pool", "threads", "--without-gossip", "--without-mingle", "--without-heartbeat")
    options = worker_options if arguments[0] == "worker" else ()
    return (sys.executable, "-m", "celery", "-A", "djinn", *arguments, *options, "--loglevel", "INFO")


def _answers(connection: http.client.HTTPConnection, path: str) -> bool:
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
