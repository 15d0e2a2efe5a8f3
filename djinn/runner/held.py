"""Deleted files that processes still hold: they take space of the disk, and no tree shows them.

A descriptor holds one, and so does a mapping after its descriptor was closed. What lies in the queue of a Unix socket
cannot be seen from outside; what it takes still lowers the disk's free space.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress

from djinn.runner.processes import threads

_GONE = (FileNotFoundError, ProcessLookupError, PermissionError)
_MAPPING = re.compile(rb"(?m)^([0-9a-f]+-[0-9a-f]+) \S+ \S+ (\S+) ([1-9]\d*) .* \(deleted\)$")


def held_files(pids: Iterable[int], devices: frozenset[int]) -> Iterator[os.stat_result | None]:
    """The files on these devices that have no name any more and that the processes hold; one may come several times.

    None comes between them, so that whoever looks can rest. Another user's processes are seen by root alone, and so are
    mappings of anybody.
    """
    for pid in pids:
        for task in threads(pid):  # a thread may have descriptors of its own
            directory = f"/proc/{pid}/task/{task}/fd"
            for name in _names(directory):
                yield _nameless(f"{directory}/{name}", devices)
        yield from _mapped(pid, devices)


def _mapped(pid: int, devices: frozenset[int]) -> Iterator[os.stat_result | None]:
    """Each file that the process has mapped, once: a mapping of one file may be torn into tens of thousands."""
    seen = set[tuple[bytes, bytes]]()
    maps, mapped = _maps(pid)
    for match in _MAPPING.finditer(mapped):
        place, device, inode = match.groups()
        if (device, inode) not in seen:
            seen.add((device, inode))
            yield _nameless(f"{maps}/map_files/{_short(place)}", devices)


def _short(place: bytes) -> str:
    """The addresses as the names in `map_files` have them, without the zeros before."""
    return "-".join(f"{int(address, 16):x}" for address in place.split(b"-"))


def _maps(pid: int) -> tuple[str, bytes]:
    """Where the mappings of a process can be looked at, and what they are: all threads share them.

    They are empty where the first thread has ended, so the others are asked; proc(5) gives each thread a folder of its
    own under its number, too.
    """
    for place in (f"/proc/{pid}", *(f"/proc/{task}" for task in threads(pid) if task != pid)):
        with suppress(*_GONE), open(f"{place}/maps", "rb") as file:
            if found := file.read():
                return place, found
    return f"/proc/{pid}", b""


def _names(directory: str) -> list[str]:
    try:
        with os.scandir(directory) as entries:
            return [entry.name for entry in entries]
    except _GONE:
        return []


def _nameless(path: str, devices: frozenset[int]) -> os.stat_result | None:
    """What the magic link leads to; nothing is opened."""
    with suppress(*_GONE):
        status = os.stat(path)
        if status.st_nlink == 0 and status.st_dev in devices:
            return status
    return None
