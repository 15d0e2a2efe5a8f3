"""The process that stands over one execution of the process runner, as the engine's shim stands over a container.

Run as `python3 -I -S process_supervisor.py STATE_DIRECTORY LOCK_FD` by `djinn.runner.process`; standard library only.
It leaves its parent behind, becomes the foster parent of every orphan below it, so that no descendant gets away, hands
SIGTERM on to its child, and writes the child's exit code once everything below it is dead. The inherited lock is let go
when `process.json` is written: whoever holds the lock therefore sees either that file or an execution that never began.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
from typing import Any

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
RESOURCES = {
    "nofile": resource.RLIMIT_NOFILE,
    "fsize": resource.RLIMIT_FSIZE,
    "core": resource.RLIMIT_CORE,
    "data": resource.RLIMIT_DATA,
}


def main() -> None:
    state, lock = sys.argv[1], int(sys.argv[2])
    ready, written = os.pipe()
    if os.fork():
        os.close(written)
        sys.exit(0 if os.read(ready, 1) == b"1" else 1)
    os.close(ready)
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    with open(os.path.join(state, "launch.json"), encoding="utf-8") as file:
        launch = json.load(file)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    child = _spawn(launch, lock)
    signal.signal(signal.SIGTERM, lambda number, frame: _forward(child))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    _write(state, "process.json", {"supervisor": _identity(os.getpid()), "child": _identity(child)})
    os.close(lock)
    os.write(written, b"1")
    os.close(written)
    code = _wait(child)
    _kill_orphans()
    _write(state, "exit.json", code)


def _spawn(launch: dict[str, Any], lock: int) -> int:
    pid = os.fork()
    if pid:
        return pid
    try:
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        os.setsid()
        signal.pthread_sigmask(signal.SIG_SETMASK, set())
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        os.close(lock)
        os.umask(0o022)  # as in a container: what it works on may look at modes
        for name, wanted in launch["limits"].items():
            _limit(RESOURCES[name], wanted)
        os.chdir(launch["directory"])
        os.execve(launch["command"][0], launch["command"], launch["environment"])  # noqa: S606
    except OSError as exc:
        sys.stderr.write(f"cannot start {launch['command'][0]}: {exc}\n")
    finally:
        sys.stderr.flush()
        os._exit(127)


def _limit(number: int, wanted: int) -> None:
    hard = resource.getrlimit(number)[1]
    bound = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(number, (bound, bound))


def _forward(child: int) -> None:
    """The child is reaped by this process alone, so its number cannot have gone to somebody else."""
    try:
        os.kill(child, signal.SIGTERM)
    except ProcessLookupError:
        return


def _wait(child: int) -> int:
    """The child's exit code as a shell tells it (128 + signal); orphans that end meanwhile are reaped too."""
    while True:
        pid, status = os.wait()
        if pid == child:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


def _kill_orphans() -> None:
    """Kill what the child left behind. Each death hands its own children to us, so go on until none is left."""
    while True:
        for pid in _children():
            os.kill(pid, signal.SIGKILL)
        try:
            os.wait()
        except ChildProcessError:
            return


def _children() -> list[int]:
    me = os.getpid()
    with open(f"/proc/{me}/task/{me}/children", encoding="ascii") as file:
        return [int(pid) for pid in file.read().split()]


def _identity(pid: int) -> dict[str, Any]:
    """A process number that cannot be mistaken for a later process with the same one."""
    with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
        started = int(file.read().rpartition(")")[2].split()[19])
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        boot = file.read().strip()
    return {"pid": pid, "started": started, "boot": boot}


def _write(state: str, name: str, value: Any) -> None:
    path = os.path.join(state, name)
    with open(path + ".new", "w", encoding="utf-8") as file:
        json.dump(value, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(path + ".new", path)


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


if __name__ == "__main__":
    main()
