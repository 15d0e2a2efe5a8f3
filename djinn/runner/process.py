"""Executions as plain processes of this machine, where there is no Docker engine. It does NOT isolate.

What an agent does here it does as the user of the worker: it reads that user's files and uses the machine's network.
Of the limits only open files, file size, core dumps and memory are kept, and memory only for each process by itself
(RLIMIT_DATA); CPU, the number of processes and the temporary space are not limited. Linux only, because of /proc.

The state of an execution is a directory under `root`: `launch.json` (what to run), `process.json` (which processes),
`exit.json` (how it ended), `lock`, `output` and the `home` it gets. Any process of the machine can carry on with it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from djinn.runner.base import (
    ContainerSpec,
    ContainerState,
    InsidePaths,
    Limits,
    Phase,
    RunnerUnavailable,
    SpecificationRefused,
    StartRefused,
)
from djinn.runner.files import read_json, remove_tree, write_json
from djinn.runner.processes import Identity, descendants, is_alive

SUPERVISOR = Path(__file__).with_name("process_supervisor.py")
LOST_EXIT_CODE = 255
LOCK_SECONDS = 10.0
LAUNCH_SECONDS = 20.0
KILL_SECONDS = 10.0
POLL_SECONDS = 0.02
_EXECUTION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


class ProcessRunner:
    """Runs executions as process groups under a supervisor of their own, which outlives the worker."""

    name = "process"
    isolates = False

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()

    def ping(self) -> str:
        return f"plain processes of {os.uname().nodename}, NOT isolated"

    def paths(self, spec: ContainerSpec) -> InsidePaths:
        return InsidePaths(
            str(spec.workspace.absolute()),
            str(spec.execution_directory.absolute()),
            str(spec.gateway_directory.absolute()),
        )

    def owner(self) -> tuple[int, int] | None:
        return None

    def resolve_image(self, reference: str) -> str:
        return reference

    def start(self, spec: ContainerSpec) -> None:
        state = self._state(spec.execution)
        if not spec.workspace.is_dir():
            raise SpecificationRefused(f"no such workspace: {spec.workspace}")
        with _lock(state) as lock:
            if self.inspect(spec.execution).phase is Phase.CREATED:
                (state / "home").mkdir(exist_ok=True)
                write_json(state / "launch.json", _launch(spec, home=state / "home"))
                _run_supervisor(state, lock)

    def inspect(self, execution: str) -> ContainerState:
        state = self._state(execution)
        supervisor = _identity(state, "supervisor")
        is_running = supervisor is not None and is_alive(supervisor)
        exit_code = read_json(state / "exit.json")
        if isinstance(exit_code, int):
            return ContainerState(Phase.EXITED, exit_code)
        if is_running:
            return ContainerState(Phase.RUNNING)
        if supervisor is not None:
            return ContainerState(Phase.EXITED, LOST_EXIT_CODE)
        return ContainerState(Phase.CREATED if state.is_dir() else Phase.ABSENT)

    def process(self, execution: str) -> Identity | None:
        supervisor = _identity(self._state(execution), "supervisor")
        return supervisor if supervisor is not None and is_alive(supervisor) else None

    def stop(self, execution: str, grace_seconds: float) -> None:
        supervisor = _identity(self._state(execution), "supervisor")
        if supervisor is None or not is_alive(supervisor):
            return
        _signal(supervisor, signal.SIGTERM)
        if not _ended(supervisor, grace_seconds):
            self._kill(execution, supervisor)

    def remove(self, execution: str) -> None:
        state = self._state(execution)
        if not state.is_dir():
            return
        with _lock(state):
            supervisor = _identity(state, "supervisor")
            if supervisor is not None and is_alive(supervisor):
                self._kill(execution, supervisor)
            remove_tree(state)

    def executions(self) -> dict[str, Phase]:
        states = self.root.iterdir() if self.root.is_dir() else ()
        phases = {state.name: self.inspect(state.name).phase for state in states}
        return {name: phase for name, phase in phases.items() if phase is not Phase.ABSENT}

    def _kill(self, execution: str, supervisor: Identity) -> None:
        """Kill everything below the supervisor; it then writes the exit code and ends. At last kill it as well."""
        deadline = time.monotonic() + KILL_SECONDS
        while not _ended(supervisor, POLL_SECONDS):
            for process in descendants(supervisor.pid):
                _signal(process, signal.SIGKILL)
            if time.monotonic() >= deadline:
                _signal(supervisor, signal.SIGKILL)
                raise RunnerUnavailable(f"the processes of {execution} survive SIGKILL for {KILL_SECONDS} s")

    def _state(self, execution: str) -> Path:
        if not _EXECUTION.fullmatch(execution):
            raise SpecificationRefused(f"not the name of an execution: {execution!r}")
        return self.root / execution


def _launch(spec: ContainerSpec, *, home: Path) -> dict[str, object]:
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "PYTHONPATH": str(spec.runtime_directory.absolute()),
        **spec.environment,
    }
    return {
        "command": [sys.executable, "-m", "djinn_runtime", str(spec.execution_directory.absolute())],
        "directory": str(spec.workspace.absolute()),
        "environment": environment,
        "limits": _resource_limits(spec.limits),
    }


def _resource_limits(limits: Limits) -> dict[str, int]:
    return {"nofile": limits.open_files, "fsize": limits.file_bytes, "core": 0, "data": limits.memory_bytes}


def _run_supervisor(state: Path, lock: int) -> None:
    with (state / "output").open("ab") as output:
        try:
            launcher = subprocess.run(
                [sys.executable, "-I", "-S", str(SUPERVISOR), str(state), str(lock)],
                pass_fds=(lock,),
                start_new_session=True,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={"LANG": "C.UTF-8"},
                cwd="/",
                timeout=LAUNCH_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as exc:
            raise RunnerUnavailable(f"the supervisor cannot be started: {exc}") from exc
    if launcher.returncode:
        words = (state / "output").read_text(errors="replace")[-2000:]
        raise StartRefused(f"the supervisor ended before its execution began: {words}")


@contextmanager
def _lock(state: Path) -> Iterator[int]:
    """Hold the execution's lock. A supervisor that starts holds a copy until its processes are written down."""
    deadline = time.monotonic() + LOCK_SECONDS
    while True:
        state.mkdir(parents=True, exist_ok=True)
        try:
            descriptor = os.open(state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            continue
        try:
            if _try_lock(descriptor, state / "lock"):
                yield descriptor
                return
        finally:
            os.close(descriptor)
        if time.monotonic() >= deadline:
            raise RunnerUnavailable(f"{state.name} is locked by another process for {LOCK_SECONDS} s")
        time.sleep(POLL_SECONDS)


def _try_lock(descriptor: int, path: Path) -> bool:
    """Whether the lock is ours and still the one that others see: `remove` deletes the file while it holds it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.stat(path).st_ino == os.fstat(descriptor).st_ino
    except OSError as exc:
        if exc.errno in (errno.EWOULDBLOCK, errno.ENOENT):
            return False
        raise


def _identity(state: Path, which: str) -> Identity | None:
    processes = read_json(state / "process.json")
    return Identity(**processes[which]) if isinstance(processes, dict) else None


def _signal(process: Identity, number: signal.Signals) -> None:
    """Send the signal, unless the process is gone or its number belongs to another one by now."""
    if is_alive(process):
        try:
            os.kill(process.pid, number)
        except ProcessLookupError:
            return


def _ended(process: Identity, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while is_alive(process):
        if time.monotonic() >= deadline:
            return False
        time.sleep(min(POLL_SECONDS, seconds))
    return True
