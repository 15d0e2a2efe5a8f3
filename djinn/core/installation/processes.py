"""Child processes that live and die with us: started, watched, started again when they die, stopped in order."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)

PR_SET_PDEATHSIG = 1
LONGEST_PAUSE_SECONDS = float(os.environ.get("DJINN_LONGEST_PAUSE_SECONDS", "10"))
STEADY_SECONDS = 30.0
"""A process that ran this long begins again with the shortest pause."""


class ProcessFailed(Exception):
    """A child did not become ready; the text names its log."""


@dataclass(frozen=True)
class Process:
    """One child: its command, environment and user, the signal that stops it, and what tells that it is ready."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    user: int | None = None
    group: int | None = None
    stop_signal: int = signal.SIGTERM
    stop_seconds: float = 8.0
    is_ready: Callable[[], bool] | None = None


@dataclass
class _Child:
    process: Process
    popen: subprocess.Popen[bytes]
    started: float
    pause: float = 0.2


class Supervisor:
    """Keeps children running. Not thread-safe: one loop owns it.

    Each child leads a session of its own, so that Ctrl-C in the terminal reaches us alone, and gets its stop signal
    from the kernel when we are killed ourselves.
    """

    def __init__(self, *, directory: Path, logs: Path) -> None:
        self._directory = directory
        self._logs = logs
        self._children: dict[str, _Child] = {}
        self._libc = ctypes.CDLL(None, use_errno=True)

    def start(self, process: Process) -> None:
        """Start a child; `wait_ready` tells when it can be used."""
        self._children[process.name] = _Child(process, self._spawn(process), time.monotonic())

    def wait_ready(self, *names: str, timeout_seconds: float) -> None:
        """Wait until the named children are ready; raises `ProcessFailed` when one ends or takes too long."""
        deadline = time.monotonic() + timeout_seconds
        for name in names:
            child = self._children[name]
            while child.process.is_ready is not None and not child.process.is_ready():
                if child.popen.poll() is not None:
                    raise ProcessFailed(f"{name} ended with {child.popen.returncode} at its start\n{self._tail(name)}")
                if time.monotonic() > deadline:
                    raise ProcessFailed(f"{name} was not ready after {timeout_seconds:.0f} s\n{self._tail(name)}")
                time.sleep(0.05)

    def tend(self) -> None:
        """Start every child that died again, after a pause that doubles while it keeps dying."""
        for child in self._children.values():
            code = child.popen.poll()
            lived = time.monotonic() - child.started
            if code is None:
                child.pause = 0.2 if lived > STEADY_SECONDS else child.pause
            elif lived > child.pause:
                log.warning("process_restarted", name=child.process.name, exit_code=code)
                child.pause = min(child.pause * 2, LONGEST_PAUSE_SECONDS)
                child.popen, child.started = self._spawn(child.process), time.monotonic()

    def stop(self, *, but: Collection[str] = ()) -> None:
        """Stop the children, all at once, except for the named ones; one that does not go in time is killed."""
        leaving = [self._children.pop(name) for name in reversed(list(self._children)) if name not in but]
        for child in leaving:
            child.popen.send_signal(child.process.stop_signal)
        for child in leaving:
            self._await_end(child)

    def pid(self, name: str) -> int:
        """The process id of a child now."""
        return self._children[name].popen.pid

    def _spawn(self, process: Process) -> subprocess.Popen[bytes]:
        with open(self._logs / f"{process.name}.log", "ab") as output:
            return subprocess.Popen(
                process.command,
                cwd=self._directory,
                env={**os.environ, **process.environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=process.user,
                group=process.group,
                extra_groups=[] if process.user is not None else None,
                preexec_fn=lambda: self._die_with_parent(process.stop_signal),
            )

    def _die_with_parent(self, stop_signal: int) -> None:
        self._libc.prctl(PR_SET_PDEATHSIG, stop_signal, 0, 0, 0)

    def _await_end(self, child: _Child) -> None:
        try:
            child.popen.wait(child.process.stop_seconds)
        except subprocess.TimeoutExpired:
            log.warning("process_killed", name=child.process.name, after_seconds=child.process.stop_seconds)
            os.killpg(child.popen.pid, signal.SIGKILL)
            child.popen.wait(5)

    def _tail(self, name: str) -> str:
        path = self._logs / f"{name}.log"
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()[-15:]
        return "\n".join([f"the end of {path}:", *(f"  {line}" for line in lines)])
