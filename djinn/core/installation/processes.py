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

from djinn.core.installation.environment import shared_environment
from djinn.core.installation.mishap import is_debug

log = structlog.get_logger(__name__)

PR_SET_PDEATHSIG = 1
READY_FILE = "DJINN_READY_FILE"
"""Names the file that a process makes when it is ready, for one that cannot be asked over a socket."""
LONGEST_PAUSE_SECONDS = float(os.environ.get("DJINN_LONGEST_PAUSE_SECONDS", "10"))
SHORTEST_PAUSE_SECONDS = 0.2
STEADY_SECONDS = 30.0
"""A process that ran this long begins again with the shortest pause, and what it died of before is forgotten."""
BEGUN_SECONDS = 5.0
"""A process that says nothing about being ready counts as ready when it has lived this long."""
MOST_RESTARTS = 5
"""How often a process is started again before it has run steadily; then something is wrong that no restart heals."""
OUTSIDE_ENDS = (0, -signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT)
"""Exit codes of a process that somebody ended; Celery's workers tell a SIGTERM as 0."""
LONGEST_WORDS = 500
LONGEST_TAIL = 16_384
DEBUG_LINES = 30


class ProcessFailed(Exception):
    """A child did not become ready, or dies again and again; the text tells its last words and its log."""


@dataclass(frozen=True)
class Process:
    """One child: its command, environment and user, the signal that stops it, and what tells that it is ready.

    `environment` stands over what every process gets of ours (`environment.shared_environment`).
    """

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    user: int | None = None
    group: int | None = None
    stop_signal: int = signal.SIGTERM
    stop_seconds: float = 8.0
    is_ready: Callable[[], bool] | None = None
    ready_file: Path | None = None


@dataclass
class _Child:
    process: Process
    popen: subprocess.Popen[bytes]
    started: float
    log_offset: int
    """Where in its log the words of this start begin."""
    pause: float = SHORTEST_PAUSE_SECONDS
    failures: int = 0
    """How often it died by itself since it last ran steadily."""
    was_ready: bool = False
    is_counted: bool = False
    """Whether its present death is among the failures already."""

    @property
    def lived(self) -> float:
        return time.monotonic() - self.started

    def look(self) -> bool:
        """Whether it is ready, or was since its start."""
        process = self.process
        if not self.was_ready:
            if process.is_ready is not None:
                self.was_ready = process.is_ready()
            elif process.ready_file is not None:
                self.was_ready = process.ready_file.exists()
            else:
                self.was_ready = self.lived > BEGUN_SECONDS
        return self.was_ready


class Supervisor:
    """Keeps children running. Not thread-safe: one loop owns it.

    Each child leads a session of its own, so that Ctrl-C in the terminal reaches us alone, and gets its stop signal
    from the kernel when we are killed ourselves. What it makes is readable by its own user only. `is_excused` says
    whether something that all of them need is away, so that their deaths prove nothing.
    """

    def __init__(self, *, directory: Path, logs: Path, is_excused: Callable[[], bool] = lambda: False) -> None:
        self._directory = directory
        self._logs = logs
        self._is_excused = is_excused
        self._children: dict[str, _Child] = {}
        self._libc = ctypes.CDLL(None, use_errno=True)

    def start(self, process: Process) -> None:
        """Start a child; `wait_ready` tells when it can be used."""
        popen, log_offset = self._spawn(process)
        self._children[process.name] = _Child(process, popen, time.monotonic(), log_offset)

    def wait_ready(self, *names: str, timeout_seconds: float) -> None:
        """Wait until the named children are ready; raises `ProcessFailed` when any ends first or takes too long."""
        deadline = time.monotonic() + timeout_seconds
        waiting = [self._children[name] for name in names]
        while True:
            for child in waiting:
                if not child.look() and child.popen.poll() is not None:
                    raise ProcessFailed(self._ended(child, "at its start"))
            waiting = [child for child in waiting if not child.was_ready]
            if not waiting:
                return
            if time.monotonic() > deadline:
                late = waiting[0]
                what = f"{late.process.name} was not ready after {timeout_seconds:.0f} s"
                raise ProcessFailed(f"{what}{self._last_words(late)}")
            time.sleep(0.05)

    def tend(self) -> None:
        """Start every child that died again, after a pause that doubles while it keeps dying.

        Raises `ProcessFailed` when a child died by itself more than `MOST_RESTARTS` times without having run steadily.
        """
        for child in self._children.values():
            if child.popen.poll() is None:
                self._praise(child)
                continue
            self._count(child)
            if child.lived > child.pause:
                self._restart(child)

    def _praise(self, child: _Child) -> None:
        if child.look() and child.lived > STEADY_SECONDS:
            child.pause, child.failures = SHORTEST_PAUSE_SECONDS, 0

    def _count(self, child: _Child) -> None:
        """Take note of a death, once. One that came from outside after it was ready says nothing against it."""
        if child.is_counted:
            return
        child.is_counted = True
        is_outside = child.popen.returncode in OUTSIDE_ENDS and (child.was_ready or _says_ready(child.process))
        if is_outside or self._is_excused():
            return
        child.failures += 1
        if child.failures > MOST_RESTARTS:
            raise ProcessFailed(
                self._ended(child, f"again, {child.failures} times without running steadily in between")
            )

    def _restart(self, child: _Child) -> None:
        words = self._words(child)
        log.warning("process_restarted", name=child.process.name, exit_code=child.popen.returncode, last_line=words)
        child.pause = min(child.pause * 2, LONGEST_PAUSE_SECONDS)
        child.popen, child.log_offset = self._spawn(child.process)
        child.started, child.was_ready, child.is_counted = time.monotonic(), False, False

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

    def _spawn(self, process: Process) -> tuple[subprocess.Popen[bytes], int]:
        """Start it; the process, and how long its log is before its first word."""
        environment = {**shared_environment(os.environ), **process.environment}
        if process.ready_file is not None:
            process.ready_file.unlink(missing_ok=True)
            environment[READY_FILE] = str(process.ready_file)
        with open(os.open(self._log(process), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as output:
            log_offset = output.tell()
            popen = subprocess.Popen(
                process.command,
                cwd=self._directory,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=process.user,
                group=process.group,
                extra_groups=[] if process.user is not None else None,
                umask=0o077,
                preexec_fn=lambda: self._die_with_parent(process.stop_signal),
            )
        return popen, log_offset

    def _die_with_parent(self, stop_signal: int) -> None:
        self._libc.prctl(PR_SET_PDEATHSIG, stop_signal, 0, 0, 0)

    def _await_end(self, child: _Child) -> None:
        try:
            child.popen.wait(child.process.stop_seconds)
        except subprocess.TimeoutExpired:
            log.warning("process_killed", name=child.process.name, after_seconds=child.process.stop_seconds)
            os.killpg(child.popen.pid, signal.SIGKILL)
            child.popen.wait(5)

    def _log(self, process: Process) -> Path:
        return self._logs / f"{process.name}.log"

    def _ended(self, child: _Child, when: str) -> str:
        return f"{child.process.name} ended with exit code {child.popen.returncode} {when}{self._last_words(child)}"

    def _last_words(self, child: _Child) -> str:
        """What to add to a sentence about a child: the last line of its log, and where the log is."""
        words, separator = self._words(child), ": "
        if is_debug():
            words, separator = self._words(child, lines=DEBUG_LINES), "\n"
        return f"{separator if words else '.'}{words}\nIts log: {self._log(child.process)}"

    def _words(self, child: _Child, *, lines: int = 1) -> str:
        """The last lines that it wrote since its start; empty when it wrote nothing."""
        with open(self._log(child.process), "rb") as file:
            file.seek(max(child.log_offset, file.seek(0, os.SEEK_END) - LONGEST_TAIL))
            found = file.read().decode("utf-8", "replace").strip().splitlines()[-lines:]
        return "\n".join(_harmless(line.rstrip()[:LONGEST_WORDS]) for line in found)


def _says_ready(process: Process) -> bool:
    """Whether it made its file: it may have died right after it, before anybody looked."""
    return process.ready_file is not None and process.ready_file.exists()


def _harmless(line: str) -> str:
    """The line without what could steer a terminal."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in line)
