"""How much room the host's file systems have, and how fast it goes."""

from __future__ import annotations

import ctypes
import os
from dataclasses import dataclass
from pathlib import Path

from djinn.runner.usage import Usage

MOST_OF_BYTES, MOST_OF_FILES = 0.05, 0.01
"""A reserve is never more than this part of its file system, however small that is."""

_QUOTACTL_FD = 443  # the same number on every architecture (since Linux 5.14)
_GET_PROJECT_INFO = (0x800005 << 8) | 2  # QCMD(Q_GETINFO, PRJQUOTA), quotactl(2)
_INFO_BYTES = 24


@dataclass(frozen=True)
class Room:
    """A file system, as its ordinary users see it. One that makes inodes as it needs them has room for any number."""

    free: Usage
    reserve: Usage

    @property
    def is_short(self) -> bool:
        return self.reserve.exceeds(self.free)


def room_at(place: Path, reserve_bytes: int) -> Room:
    """The file system that holds the place. Raises OSError."""
    found = os.statvfs(place)
    reserve = Usage(
        min(reserve_bytes, int(found.f_blocks * found.f_frsize * MOST_OF_BYTES)),
        int(found.f_files * MOST_OF_FILES) if reserve_bytes else 0,
    )
    files = found.f_favail if found.f_files else 2**62
    return Room(Usage(found.f_bavail * found.f_frsize, files), reserve)


class Drain:
    """How much room the file system of each place has lost since this began: every fall counts, no rise takes it back.

    Nothing on it can have grown by more, but for what rose and fell between two looks.
    """

    def __init__(self) -> None:
        self._last: dict[Path, Usage] = {}
        self._lost: dict[Path, Usage] = {}

    def look(self, place: Path, room: Room) -> None:
        before, lost = self._last.get(place, room.free), self.lost(place)
        self._last[place] = room.free
        self._lost[place] = Usage(
            lost.bytes + max(0, before.bytes - room.free.bytes), lost.files + max(0, before.files - room.free.files)
        )

    def lost(self, place: Path) -> Usage:
        return self._lost.get(place, Usage())


def has_project_quotas(place: Path) -> bool:
    """Whether the kernel keeps quotas of projects on the file system that holds the place (quotactl(2))."""
    descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        info = ctypes.create_string_buffer(_INFO_BYTES)
        libc = ctypes.CDLL(None, use_errno=True)
        return int(libc.syscall(_QUOTACTL_FD, descriptor, ctypes.c_uint(_GET_PROJECT_INFO), 0, info)) == 0
    finally:
        os.close(descriptor)
