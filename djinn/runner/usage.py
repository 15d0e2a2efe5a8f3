"""What an execution takes of its host's disk: trees that it may be changing meanwhile, and deleted files that it holds.

The trees are hostile: no link is followed, no path is opened by its name from the root, and neither depth nor names nor
numbers make it fail or keep more than some descriptors. Every function here stops soon above its bound.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Generator, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from djinn.runner.held import held_files

OPEN_LEVELS = 64
"""Directories inside each other that are held open; further out ones are found again by way of `..`."""
NAMES_A_FILE = 4
"""Names cost time to look at: so many times the bound of files is too many, whatever they lead to."""
ENTRIES_A_STEP = 200

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_Steps = Generator[None, None, None]


@dataclass(frozen=True)
class Usage:
    """Bytes as the disk has them, holes left out, and files: everything that has an inode, directories too."""

    bytes: int = 0
    files: int = 0

    def exceeds(self, bound: Usage) -> bool:
        return self.bytes > bound.bytes or self.files > bound.files


def measuring(places: Sequence[Path], pids: Iterable[int], bound: Usage) -> Generator[None, None, Usage]:
    """Count what the places and the deleted files of these processes take together; absent places take nothing.

    A generator: it yields after every few hundred entries, so that whoever counts can rest, and returns the usage. It
    stops soon above the bound. A tree that is moved about while its deepest parts are counted is above every bound.
    """
    count = _Count(bound)
    for place in places:
        try:
            top = os.open(place, _DIRECTORY)
        except (FileNotFoundError, NotADirectoryError):
            continue
        count.add(os.fstat(top))
        yield from _tree(top, count)
    devices = frozenset(count.devices)
    for number, status in enumerate(held_files(pids, devices)):
        if status is not None:
            count.add(status)
        if count.is_over():
            break
        if number % ENTRIES_A_STEP == 0:
            yield
    return count.usage()


def measure(places: Sequence[Path], pids: Iterable[int], bound: Usage) -> Usage:
    """The same, at once."""
    steps = measuring(places, pids, bound)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            usage: Usage = end.value
            return usage


@dataclass
class _Count:
    """What was seen so far. A file with several names, or none, counts once."""

    bound: Usage
    bytes: int = 0
    files: int = 0
    names: int = 0
    devices: set[int] = field(default_factory=set)
    is_torn: bool = False
    _seen: set[tuple[int, int]] = field(default_factory=set)

    def add(self, status: os.stat_result) -> None:
        self.names += 1
        if status.st_nlink != 1 and not stat.S_ISDIR(status.st_mode):
            file = (status.st_dev, status.st_ino)
            if file in self._seen:
                return
            self._seen.add(file)
        self.files += 1
        self.bytes += status.st_blocks * 512

    def is_over(self) -> bool:
        return self.is_torn or self.usage().exceeds(self.bound)

    def usage(self) -> Usage:
        if self.is_torn or self.names > NAMES_A_FILE * self.bound.files:
            return Usage(self.bytes, max(self.files, self.bound.files + 1))
        return Usage(self.bytes, self.files)


@dataclass
class _Level:
    """A directory on the way, and the directories in it that are still to be counted. It may have been closed."""

    identity: tuple[int, int]
    descriptor: int | None
    names: list[str]


def _tree(top: int, count: _Count) -> _Steps:
    """Count everything below the open directory, and itself; closes it."""
    levels: list[_Level] = []
    pending: int | None = top
    try:
        while pending is not None or levels:
            if pending is not None:
                levels.append(_Level(_identity(pending), pending, []))
                count.devices.add(levels[-1].identity[0])
                pending = None
                _close_distant(levels)
                yield from _directory(levels[-1], count)
            elif levels[-1].names:
                pending = _inner(levels[-1])
            elif not _leave(levels):
                count.is_torn = True
            if count.is_over():
                return
    finally:
        for descriptor in [level.descriptor for level in levels] + [pending]:
            if descriptor is not None:
                os.close(descriptor)


def _directory(level: _Level, count: _Count) -> _Steps:
    """Count the entries of the directory, and note which of them are directories."""
    assert level.descriptor is not None
    with os.scandir(level.descriptor) as entries:
        for number, entry in enumerate(entries):
            with suppress(FileNotFoundError, PermissionError):
                status = entry.stat(follow_symlinks=False)
                count.add(status)
                if stat.S_ISDIR(status.st_mode):
                    level.names.append(entry.name)
            if number % ENTRIES_A_STEP == 0:
                if count.is_over():
                    return
                yield


def _inner(level: _Level) -> int | None:
    """The next directory, open; None when it has gone or become something else."""
    assert level.descriptor is not None
    name = level.names.pop()
    with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
        try:
            return os.open(name, _DIRECTORY, dir_fd=level.descriptor)
        except PermissionError:
            return _forced_open(name, level.descriptor)
    return None


def _forced_open(name: str, parent: int) -> int:
    """Open a directory that its owner, who we are, has closed; it stays open to them."""
    closed = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    place = Path(f"/proc/self/fd/{closed}")
    try:
        place.chmod(stat.S_IMODE(os.fstat(closed).st_mode) | stat.S_IRUSR | stat.S_IXUSR)
        return os.open(f"{place}/.", _DIRECTORY)
    finally:
        os.close(closed)


def _close_distant(levels: list[_Level]) -> None:
    """Keep few open."""
    if len(levels) > OPEN_LEVELS:
        distant = levels[-OPEN_LEVELS]
        if distant.descriptor is not None:
            os.close(distant.descriptor)
            distant.descriptor = None


def _leave(levels: list[_Level]) -> bool:
    """Go back to the directory around; False when it is not there any more, because the tree was moved about."""
    level = levels.pop()
    assert level.descriptor is not None
    try:
        if levels and levels[-1].descriptor is None:
            around = os.open("..", _DIRECTORY, dir_fd=level.descriptor)
            levels[-1].descriptor = around
            return _identity(around) == levels[-1].identity
        return True
    except OSError:
        return False
    finally:
        os.close(level.descriptor)


def _identity(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino
