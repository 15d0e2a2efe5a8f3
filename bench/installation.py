"""An installation of its own for the benchmarks: a temporary folder, and `manage.py up` as a child of this process."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
PIPELINES = Path(__file__).with_name("pipelines")
UP_SECONDS = 120.0
STOP_SECONDS = 40.0
STACK_ENVIRONMENT = {"DJINN_LOG_LEVEL": "INFO", "DJINN_LONGEST_PAUSE_SECONDS": "0.2"}
"""A process that is killed again and again is started again as fast as one that died for the first time."""


class BenchFailed(Exception):
    """Something did not do what it must before it can be measured; the text tells what."""


@contextmanager
def installed() -> Iterator[Path]:
    """A fresh home that this process's Django and its children use; removed at the end."""
    home = Path(tempfile.mkdtemp(prefix="djinn-bench-"))
    home.chmod(0o755)  # PostgreSQL's own user has to reach its folder
    for name in ("DATABASE_URL", "REDIS_URL", "DJINN_SECRET_KEY", "DJINN_INSTALLATION"):
        os.environ.pop(name, None)
    os.environ |= {
        "DJINN_HOME": str(home),
        "DJINN_PIPELINES": str(PIPELINES),
        "DJANGO_SETTINGS_MODULE": "djinn.settings",
        "DJINN_LOG_LEVEL": "WARNING",
        "DJINN_RUNNER": "stub",
    }
    try:
        _set_up_django()
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


@dataclass(frozen=True)
class Up:
    """A running stack."""

    process: subprocess.Popen[str]
    url: str
    seconds: float
    """From its start to ready."""

    def children(self) -> dict[int, str]:
        """The processes of the stack by id, the one that started the others included."""
        return {pid: _name_of(pid) for pid in descendants(self.process.pid)}

    def agents_worker(self) -> int:
        """The process of the agents worker; raises `BenchFailed` when there is none."""
        found = [pid for pid, name in self.children().items() if name == "agents"]
        if len(found) != 1:
            raise BenchFailed(f"one agents worker was to run, there are {len(found)}")
        return found[0]


@contextmanager
def stack(runner: str, environment: Mapping[str, str] | None = None) -> Iterator[Up]:
    """The whole stack with that runner, stopped at the end. Raises `BenchFailed` when it does not come up."""
    from djinn.core.installation.stack import free_port

    port = free_port(0)
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-u", "manage.py", "up", "--port", str(port)],
        cwd=PROJECT,
        env={**os.environ, **STACK_ENVIRONMENT, "DJINN_RUNNER": runner, **(environment or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        _wait_until_up(process)
        yield Up(process, f"http://127.0.0.1:{port}", time.monotonic() - started)
    finally:
        _stop(process)


def _set_up_django() -> None:
    import django

    django.setup()


def _wait_until_up(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if "Djinn is up" in line:
            return
    raise BenchFailed("the stack did not come up:\n" + "".join(said[-30:]))


def _stop(process: subprocess.Popen[str]) -> None:
    from django.db import connection

    connection.close()
    if connection.pool:
        connection.close_pool()  # type: ignore[attr-defined]  # its server goes away
    process.send_signal(signal.SIGTERM)
    try:
        process.communicate(timeout=STOP_SECONDS)
    except subprocess.TimeoutExpired as exc:
        process.kill()
        raise BenchFailed(f"the stack did not stop in {STOP_SECONDS:.0f} s") from exc


def descendants(root: int) -> list[int]:
    """The process and all that it and its children started."""
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            parents[int(entry.name)] = int(fields[1])
    found = [root]
    for pid in found:
        found.extend(child for child, parent in parents.items() if parent == pid)
    return found


def _name_of(pid: int) -> str:
    words = Path(f"/proc/{pid}/cmdline").read_bytes().decode("utf-8", "replace").replace("\0", " ")
    marks = {"gateway.asgi": "gateway", "djinn.asgi": "web", "-Q control": "control", "-Q agents": "agents"}
    marks |= {" beat ": "beat", "manage.py up": "up", "redis-server": "redis", "postgres": "postgres"}
    return next((name for mark, name in marks.items() if mark in words), words[:40])
