"""Keeps the executions of this process within their bounds of disk space, and some of the host's disks free.

It looks from outside: at the free space of the file systems a few times a second, and at an execution by itself when
they have lost enough since to be a part of what it has left, or long ago. One whose processes have not run since is not
counted again. What is counted is counted a few hundred entries at a time, two executions at once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import structlog

from djinn.runner.room import Drain, Room, room_at
from djinn.runner.usage import Usage, measure, measuring
from djinn.runner.watched import Overuse, Watched

log = structlog.get_logger(__name__)

LOOK_SECONDS, SLICE_SECONDS = 0.25, 0.01
AT_ONCE = 2
PATIENCE_SECONDS = 5.0
"""How long a short disk waits for everybody on it to be counted."""
SETTLE_SECONDS = 2.0
"""How long a disk has to recover after one who filled it has gone, and until all are counted again when nobody did."""
QUIET_SECONDS = 60.0
CLEAR_GROWTH = Usage(1024**2, 1000)
CLEAR_WRITING = 64 * 1024**2


class DiskWatch:
    """Watches in one thread, which begins with the first execution."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: list[Watched] = []
        self._drain = Drain()
        self._reserve_bytes = 0
        self._thread: threading.Thread | None = None
        self._counting: dict[Watched, tuple[Generator[None, None, Usage], float]] = {}
        self._short_since: dict[Path, float] = {}
        self._told = -QUIET_SECONDS

    @contextmanager
    def watching(self, watched: Watched, *, reserve_bytes: int) -> Iterator[None]:
        """Watch the execution inside the block, and keep so much of its disks free."""
        with self._lock:
            self._reserve_bytes = reserve_bytes
            self._held.append(watched)
            self._rooms()
            watched.mark(self._drain, watched.activity)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="disk-watch", daemon=True)
                self._thread.start()
        try:
            yield
        finally:
            with self._lock:
                self._held.remove(watched)

    def last_look(self, watched: Watched) -> Overuse | None:
        """What the execution, whose processes have ended, has used too much of; it is counted if it may have grown."""
        with self._lock:
            self._rooms()
        if watched.overuse is None and (watched.is_doubted or watched.may_have_grown(self._drain)):
            usage = measure(watched.places, (), watched.bound)
            return watched.excess(usage) if usage.exceeds(watched.bound) else None
        return watched.overuse

    def _run(self) -> None:
        next_look = 0.0
        while True:
            time.sleep(SLICE_SECONDS if self._counting else LOOK_SECONDS)
            try:
                if time.monotonic() >= next_look:
                    self._look()
                    next_look = time.monotonic() + LOOK_SECONDS
                if self._count():
                    next_look = 0.0
            except Exception as exc:  # the thread's edge: without it nothing is bounded any more
                log.error("disk_not_watched", error=str(exc), kind=type(exc).__name__)

    def _rooms(self) -> dict[Path, Room]:
        """The disks of all that is watched, and what they have lost since the last look. Needs the lock."""
        rooms = {}
        for disk in {disk for watched in self._held for disk in watched.disks}:
            rooms[disk] = room_at(disk, self._reserve_bytes)
            self._drain.look(disk, rooms[disk])
        return rooms

    def _look(self) -> None:
        """See what the disks have lost, stop who fills them, and begin to count whoever may have grown."""
        with self._lock:
            held, rooms = list(self._held), self._rooms()
        now = time.monotonic()
        for disk, room in rooms.items():
            self._keep_reserve(disk, room, [watched for watched in held if disk in watched.disks], now)
        due = []
        for watched in held:
            if watched not in self._counting and (watched.is_due(self._drain, now) or self._is_asked_for(watched, now)):
                activity = watched.look()
                if watched.usage is None or watched.is_doubted or not activity.is_nothing_since(watched.activity):
                    due.append((activity.ran - watched.activity.ran, id(watched), watched, activity))
                else:
                    watched.mark(self._drain, activity)
                    watched.rest()
        for _, _, watched, activity in sorted(due, reverse=True)[: AT_ONCE - len(self._counting)]:
            watched.mark(self._drain, activity)
            self._counting[watched] = (measuring(watched.places, activity.pids, watched.bound), 0.0)

    def _is_asked_for(self, watched: Watched, now: float) -> bool:
        """Whether one of its disks is short of room, and what it takes of it is not known since."""
        since = [self._short_since.get(disk, now + 1) for disk in watched.disks]
        return watched.overuse is None and any(watched.looked_at < short <= now for short in since)

    def _count(self) -> bool:
        """Go on for a moment with each that is being counted; whether one was finished."""
        has_finished = False
        for watched, (steps, took) in list(self._counting.items()):
            began = time.monotonic()
            usage: Usage | None = None
            try:
                while time.monotonic() < began + SLICE_SECONDS:
                    next(steps)
            except StopIteration as end:
                usage = end.value
            except OSError as exc:
                log.warning("disk_not_counted", places=[str(place) for place in watched.places], error=str(exc))
                usage = watched.usage or Usage()
            took += time.monotonic() - began
            self._counting[watched] = (steps, took)
            if usage is not None:
                has_finished = True
                del self._counting[watched]
                watched.note(usage, took)
        return has_finished

    def _keep_reserve(self, disk: Path, room: Room, those: list[Watched], now: float) -> None:
        """While the disk has less than its reserve, stop whoever on it has grown most, one after the other."""
        if not room.is_short:
            self._short_since.pop(disk, None)
            return
        since = self._short_since.setdefault(disk, now)
        if any(watched.overuse for watched in those):
            self._short_since[disk] = now + SETTLE_SECONDS
        elif now >= since and (now > since + PATIENCE_SECONDS or all(watched.looked_at >= since for watched in those)):
            self._short_since[disk] = now + SETTLE_SECONDS
            largest = _largest(those)
            if largest is not None or now > self._told + QUIET_SECONDS:
                self._told = now
                log.warning("disk_short", disk=str(disk), free_bytes=room.free.bytes, stops=largest is not None)
            if largest is not None:
                largest.stop(Overuse.HOST)


def _largest(those: list[Watched]) -> Watched | None:
    """Who has grown most, if anybody has: by what was counted, else by what was written to places that nobody sees."""
    grown = max(those, key=lambda watched: watched.growth().bytes, default=None)
    if grown is None or grown.growth().bytes >= CLEAR_GROWTH.bytes:
        return grown
    writer = max(those, key=Watched.written)
    if writer.written() >= CLEAR_WRITING:
        return writer
    crowded = max(those, key=lambda watched: watched.growth().files)
    return crowded if crowded.growth().files >= CLEAR_GROWTH.files else None
