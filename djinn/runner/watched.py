"""One execution whose use of the disk is watched: what is known of it, and when it has to be counted."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from djinn.runner.processes import Identity, bytes_written, family, is_alive, time_run
from djinn.runner.room import Drain
from djinn.runner.usage import Usage

FIRST_SECONDS = 1.0
"""When an execution is first counted, unless room goes fast: most steps have ended by then."""
REGULAR_SECONDS, LONGEST_SECONDS = 30.0, 300.0
LEAST_REST_SECONDS, REST, LONG_REST = 0.25, 4, 20
"""A counting that took a second is repeated after `REST` seconds at the earliest, and `LONG_REST` at the latest."""
PART = 4
"""An execution is counted again when a disk has lost this part of what the execution has left."""
LEAST = Usage(4 * 1024**2, 1000)
"""What is not worth another counting."""


class Overuse(StrEnum):
    """What an execution has used too much of."""

    BYTES = "bytes"
    FILES = "files"
    HOST = "host"
    """It is within its bounds, but has grown most while the host's disk is nearly full."""


@dataclass(frozen=True)
class Activity:
    """Which processes an execution has, and for how many nanoseconds they have run; no processes: that is not known."""

    pids: tuple[int, ...] = ()
    ran: int = 0

    def is_nothing_since(self, earlier: Activity) -> bool:
        return bool(self.pids) and self == earlier


@dataclass(eq=False)
class Watched:
    """One execution. Its places are on the file systems of the `disks`.

    `find_process` gives the first of its processes, or None when this host's process table does not show it.
    `on_overuse` is called at most once, in another thread.
    """

    places: Sequence[Path]
    disks: Sequence[Path]
    bound: Usage
    find_process: Callable[[], Identity | None]
    on_overuse: Callable[[], None]
    overuse: Overuse | None = None
    usage: Usage | None = None
    looked_at: float = 0.0
    """When it was last counted, or found idle."""
    activity: Activity = field(default_factory=Activity)
    """What it had done when the last counting began."""
    is_doubted: bool = False
    """It was above its bound once. A file that is renamed while it is counted may be seen twice."""
    _began: float = field(default_factory=time.monotonic)
    _took: float = 0.0
    _first: Usage = field(default_factory=Usage)
    _written: int = 0
    _marks: Mapping[Path, Usage] = field(default_factory=dict)
    _process: Identity | None = None

    def processes(self) -> list[int]:
        """The numbers of its processes, as far as they can be seen."""
        if self._process is None or not is_alive(self._process):
            self._process = self.find_process()
        return family(self._process) if self._process is not None else []

    def look(self) -> Activity:
        """What it has done up to now."""
        pids = self.processes()
        return Activity(tuple(pids), time_run(pids))

    def mark(self, drain: Drain, activity: Activity) -> None:
        """It is counted from now on: what its disks lose may be its growth."""
        self._marks = {disk: drain.lost(disk) for disk in self.disks}
        self.activity = activity

    def is_due(self, drain: Drain, now: float) -> bool:
        """Whether it may have grown so much, or was counted so long ago, that it has to be counted."""
        if self.overuse is not None:
            return False
        if self.is_doubted:
            return True
        if now < self.looked_at + max(LEAST_REST_SECONDS, REST * self._took):
            return False
        regular = min(LONGEST_SECONDS, REGULAR_SECONDS + LONG_REST * self._took)
        wait = FIRST_SECONDS if self.usage is None else regular
        return now > max(self._began, self.looked_at) + wait or self.may_have_grown(drain)

    def may_have_grown(self, drain: Drain) -> bool:
        """Whether one of its disks has lost a good part of what it has left since it was counted."""
        left = minus(self.bound, self.usage or Usage())
        most = Usage(max(left.bytes // PART, LEAST.bytes), max(left.files // PART, LEAST.files))
        return any(minus(drain.lost(disk), mark).exceeds(most) for disk, mark in self._marks.items())

    def rest(self) -> None:
        """It is as it was."""
        self.looked_at = time.monotonic()

    def note(self, usage: Usage, took_seconds: float) -> None:
        """What a counting has found."""
        self.looked_at, self._took = time.monotonic(), took_seconds
        if self.usage is None:
            self._first, self._written = usage, bytes_written(self.activity.pids)
        self.usage = usage
        was_doubted, self.is_doubted = self.is_doubted, usage.exceeds(self.bound)
        if was_doubted and self.is_doubted:
            self.stop(self.excess(usage))

    def excess(self, usage: Usage) -> Overuse:
        """Which of its bounds the usage exceeds."""
        return Overuse.BYTES if usage.bytes > self.bound.bytes else Overuse.FILES

    def growth(self) -> Usage:
        """What it has grown by since it was first counted."""
        return minus(self.usage or Usage(), self._first)

    def written(self) -> int:
        """Bytes that its processes have written since then, wherever to."""
        return max(0, bytes_written(self.processes()) - self._written)

    def stop(self, overuse: Overuse) -> None:
        if self.overuse is None:
            self.overuse = overuse
            self.on_overuse()


def minus(usage: Usage, other: Usage) -> Usage:
    """The difference, not below zero."""
    return Usage(max(0, usage.bytes - other.bytes), max(0, usage.files - other.files))
