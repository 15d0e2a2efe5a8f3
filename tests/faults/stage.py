"""Where a storm takes place: a watched stack whose PostgreSQL is behind a proxy, with a small disk of its own for
workspaces, room for further workers, and an engine of its own when the storm is to hurt that."""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import threading
from pathlib import Path

from djinn.core.installation import servers
from djinn.core.installation.paths import PROJECT
from djinn.core.installation.processes import Process, Supervisor
from tests.faults.engine_lever import Engine
from tests.faults.harness import Watched, audit
from tests.faults.proxy import Proxy
from tests.stack.live import wait_for

LEASE_SECONDS = 2.0
WORKSPACES_SIZE = "1g"
TEND_SECONDS = 0.2
DJINN = ("gateway", "web", "control", "agents", "beat")


class Stage(Watched):
    """The stack of a storm. `engine` None leaves the machine's own engine alone and uses it."""

    def __init__(self, *, image: str, engine: Engine | None = None) -> None:
        engines = {"DOCKER_HOST": engine.url} if engine else {}
        ours = {"DJINN_KEEP_CONTAINER_SECONDS": "60", **engines}
        super().__init__(image=image, runner="docker", lease_seconds=LEASE_SECONDS, environment=ours)
        self.engine = engine
        self.proxy = Proxy(directory=self.home / "p", upstream=self.installation.postgres_sockets)
        self._environment["DATABASE_URL"] = self.proxy.url("djinn")
        self._servers = Supervisor(directory=PROJECT, logs=self.installation.logs)
        self._fleet = Supervisor(directory=PROJECT, logs=self.installation.logs)
        self._tended = [self._servers]
        self._is_closing = threading.Event()
        self._tender = threading.Thread(target=self._tend, name="tender", daemon=True)
        self._has_servers = self._has_disk = False
        self._extra: list[subprocess.Popen[bytes]] = []
        self._numbers = itertools.count(1)
        self._commands: dict[str, list[str]] = {}

    # --- its life -----------------------------------------------------------------------------------------------------
    def up(self) -> None:
        """Start PostgreSQL, the proxy before it, the stack, and a second worker of each kind.

        A second time, after a power cut, the stack alone: everything else is tended here.
        """
        if not self._has_servers:
            self._start_servers()
        super().up()
        if not self._commands:
            self._commands = {name: self._command_of(self.pid(name)) for name in ("control", "agents")}
            places = {"DJINN_BASE_URL": self.url, "REDIS_URL": self.installation.redis_url}
            for name in self._commands:
                self._fleet.start(Process(f"second-{name}", self._worker(name), {**self._environment, **places}))
            self._tended.append(self._fleet)

    def close(self, *, keep: bool) -> None:
        """Stop everything, workers first; `keep` leaves the home's files where they are."""
        self._is_closing.set()
        if self._tender.is_alive():
            self._tender.join(10)
        for worker in self._extra:
            worker.kill()
            worker.wait(20)
        self._fleet.stop()
        self._is_over.set()
        try:
            if self.process is not None and self.process.poll() is None:
                self.down()
        finally:
            if self._has_servers:
                self.proxy.stop()
                self._servers.stop()
            if keep:
                for container in self.containers():
                    self.docker("rm", "-f", container)
            else:
                self._unmount()
                self.clean()

    def _start_servers(self) -> None:
        self.installation.make_directories()
        self._mount()
        self._has_servers = True
        server = servers.postgres_server(self.installation)
        url = self.installation.database_url
        self._servers.start(
            Process(server.name, server.command, user=server.user, group=server.group, stop_signal=signal.SIGINT,
                    is_ready=lambda: servers.postgres_answers(url))
        )  # fmt: skip
        self._servers.wait_ready(server.name, timeout_seconds=60)
        servers.ensure_database(url)
        self.proxy.start()
        self._tender.start()

    def _tend(self) -> None:
        while not self._is_closing.wait(TEND_SECONDS):
            for supervisor in self._tended:
                supervisor.tend()

    # --- its disk -----------------------------------------------------------------------------------------------------
    def _mount(self) -> None:
        place = str(self.installation.workspaces)
        options = f"size={WORKSPACES_SIZE},mode=711"
        subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", place], check=True, timeout=10)
        self._has_disk = True

    def _unmount(self) -> None:
        if self._has_disk:
            subprocess.run(["umount", "--lazy", str(self.installation.workspaces)], check=True, timeout=10)

    def resize_disk(self, *, is_full: bool) -> None:
        """Leave no byte free on the workspaces' disk, or give the space back."""
        place = str(self.installation.workspaces)
        found = os.statvfs(place)
        used = (found.f_blocks - found.f_bfree) * found.f_frsize // 1024
        size = f"{used + 4}k" if is_full else WORKSPACES_SIZE
        subprocess.run(["mount", "-o", f"remount,size={size}", place], check=True, timeout=10)

    # --- its processes ------------------------------------------------------------------------------------------------
    def _command_of(self, pid: int) -> list[str]:
        return (Path("/proc") / str(pid) / "cmdline").read_bytes().decode().rstrip("\0").split("\0")

    def _worker(self, name: str) -> tuple[str, ...]:
        """The command of one more worker of that kind, with a name of its own."""
        own = f"{name}-{next(self._numbers)}@%h"
        return tuple(own if part == f"{name}@%h" else part for part in self._commands[name])

    def start_worker(self, name: str, environment: dict[str, str]) -> subprocess.Popen[bytes]:
        """One more `control` or `agents` worker beside the stack's own, with more in its environment."""
        with (self.installation.logs / "extra.log").open("ab") as file:
            worker = subprocess.Popen(
                self._worker(name), cwd=PROJECT, env={**self._environment, "DJINN_BASE_URL": self.url, **environment},
                stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True,
            )  # fmt: skip
        self._extra.append(worker)
        return worker

    def reap(self) -> None:
        """Forget further workers that have ended."""
        self._extra = [worker for worker in self._extra if worker.poll() is None]

    def power_cut(self) -> None:
        """SIGKILL for everything at once, the process that would start it again included."""
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)  # it must not see its children die
        for pid in self.processes():
            if pid != self.process.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait(20)

    def heal(self) -> None:
        """Whatever still hurts, ends: for the quiet period."""
        self.proxy.forget_losses()
        self.proxy.delay(0)
        self.proxy.refuse(on=False)
        self.proxy.blackhole(on=False)
        if self._has_disk:
            self.resize_disk(is_full=False)
        for worker in self._extra:
            worker.kill()
            worker.wait(20)
        self.reap()
        if self.engine is not None:
            self.engine.resume()
            if self.engine.has_died() or not self.engine.answers():
                self.engine.kill()
                self.engine.start()
        for name in (*DJINN, "redis", "postgres"):
            for pid in self.pids(name):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
        audit(self.installation.database_url)

    def is_alive(self) -> bool:
        """Whether every part of the stack has a process."""
        return all(self.pids(name) for name in (*DJINN, "redis", "postgres"))

    def await_alive(self, *, seconds: float = 60.0) -> None:
        wait_for(self.is_alive, seconds=seconds, why="all processes of the stack")
        wait_for(lambda: servers.postgres_answers(self.installation.database_url), seconds=seconds, why="PostgreSQL")
