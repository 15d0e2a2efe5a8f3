"""What /proc tells about processes: who is alive, and who descends from whom."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path


@dataclass(frozen=True)
class Identity:
    """One process for ever: numbers are given again, but not with the same start (in clock ticks) of the same boot."""

    pid: int
    started: int
    boot: str


@dataclass(frozen=True)
class _Status:
    state: str
    parent: int
    started: int


def is_alive(process: Identity) -> bool:
    """Whether any thread of the process still runs; a zombie does not."""
    status = _status(process.pid)
    return (
        status is not None
        and status.started == process.started
        and process.boot == _boot_id()
        and _runs(process.pid, status)
    )


def descendants(pid: int) -> list[Identity]:
    """Every process below `pid`, zombies left out."""
    statuses = {number: status for number in _numbers() if (status := _status(number)) is not None}
    below = {pid}
    grown = True
    while grown:
        children = {number for number, status in statuses.items() if status.parent in below}
        grown = not children <= below
        below |= children
    alive = (number for number in below - {pid} if _runs(number, statuses[number]))
    return [Identity(number, statuses[number].started, _boot_id()) for number in alive]


def identity_of(pid: int) -> Identity | None:
    """The process that has this number now; None when there is none."""
    status = _status(pid)
    return None if status is None else Identity(pid, status.started, _boot_id())


def family(root: Identity) -> list[int]:
    """The numbers of the process and of all below it, of those that live; empty when it is gone.

    Costs what the family is large, not what the machine runs. A process that moves meanwhile may be missed.
    """
    found: list[int] = []
    pending = [root.pid] if is_alive(root) else []
    while pending:
        pid = pending.pop()
        found.append(pid)
        for task in threads(pid):
            pending += _children(pid, task)
    return found


def control_group(pid: int) -> str:
    """The control groups that the process is in, one a line; empty when there is no such process."""
    try:
        return _read(f"/proc/{pid}/cgroup")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def threads(pid: int) -> list[int]:
    """The threads of the process; none when it is gone."""
    try:
        with os.scandir(f"/proc/{pid}/task") as entries:
            return [int(entry.name) for entry in entries]
    except (FileNotFoundError, ProcessLookupError):
        return []


def time_run(pids: Iterable[int]) -> int:
    """Nanoseconds that the threads of these processes have spent on a processor (proc(5), `schedstat`)."""
    total = 0
    for pid in pids:
        for task in threads(pid):
            with suppress(FileNotFoundError, ProcessLookupError):
                total += int(_read(f"/proc/{pid}/task/{task}/schedstat").split()[0])
    return total


def bytes_written(pids: Iterable[int]) -> int:
    """What these processes, and those below them that have ended, made the kernel write to disks (proc(5), `io`)."""
    total = 0
    for pid in pids:
        with suppress(FileNotFoundError, ProcessLookupError, PermissionError):
            fields = dict(line.split(": ") for line in _read(f"/proc/{pid}/io").splitlines())
            total += int(fields["write_bytes"])
    return total


def _children(pid: int, task: int) -> list[int]:
    try:
        return [int(child) for child in _read(f"/proc/{pid}/task/{task}/children").split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def _read(path: str) -> str:
    with open(path, encoding="ascii", errors="replace") as file:
        return file.read()


def _numbers() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]


def _runs(pid: int, status: _Status) -> bool:
    """By the states of its threads: a process whose first thread has ended says of itself that it is a zombie."""
    if status.state not in "ZX":
        return True
    found = (_status(pid, f"/task/{task}") for task in threads(pid))
    return any(one.state not in "ZX" for one in found if one is not None)


def _status(pid: int, task: str = "") -> _Status | None:
    """The fields of proc(5) `/proc/PID/stat` behind the command, which may hold anything, brackets too."""
    try:
        text = Path(f"/proc/{pid}{task}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()
    return _Status(state=fields[0], parent=int(fields[1]), started=int(fields[19]))


@cache
def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
