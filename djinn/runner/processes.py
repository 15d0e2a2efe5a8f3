"""What /proc tells about processes: who is alive, and who descends from whom."""

from __future__ import annotations

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
    """Whether the process still runs; a zombie does not."""
    status = _status(process.pid)
    return (
        status is not None
        and status.state not in "ZX"
        and status.started == process.started
        and process.boot == _boot_id()
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
    alive = (number for number in below - {pid} if statuses[number].state not in "ZX")
    return [Identity(number, statuses[number].started, _boot_id()) for number in alive]


def _numbers() -> list[int]:
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]


def _status(pid: int) -> _Status | None:
    """The fields of proc(5) `/proc/PID/stat` behind the command, which may hold anything, brackets too."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text.rpartition(")")[2].split()
    return _Status(state=fields[0], parent=int(fields[1]), started=int(fields[19]))


@cache
def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
