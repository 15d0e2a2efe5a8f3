"""Looking through a tree that someone else may be changing: no link is followed, at any depth."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

DEEPEST = 200
"""Directories below the root; each level costs a descriptor. Nothing that people make is that deep."""

INODE_BYTES = 256
"""What a name costs at least: without it a tree of empty files would count as nothing."""

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class TooDeep(Exception):
    """A tree of more than `DEEPEST` levels."""


@dataclass(frozen=True)
class Entry:
    """One name of a tree. `directory` is open while the entry is looked at; `path` is the way from the root."""

    name: str
    path: tuple[str, ...]
    status: os.stat_result
    directory: int


def walk(tree: Path, enters: Callable[[Entry], bool] = lambda entry: True) -> Iterator[Entry]:
    """Every entry below the tree, each directory before its content; `enters` may keep it out of a directory.

    What vanishes meanwhile is left out, and so is the content of a directory that may not be read. Raises `TooDeep`,
    and `OSError` when the tree itself cannot be read.
    """
    open_directories = [os.open(tree, _DIRECTORY)]
    pending: list[tuple[tuple[str, ...], list[str]]] = [((), _names(open_directories[0]))]
    try:
        while pending:
            path, names = pending[-1]
            if not names:
                pending.pop()
                os.close(open_directories.pop())
                continue
            name = names.pop()
            entry = _entry(name, (*path, name), open_directories[-1])
            if entry is None:
                continue
            yield entry
            if stat.S_ISDIR(entry.status.st_mode) and enters(entry):
                if len(open_directories) > DEEPEST:
                    raise TooDeep(f"more than {DEEPEST} directories inside each other")
                if (inner := _open(entry)) is not None:
                    open_directories.append(inner)
                    pending.append((entry.path, _names(inner)))
    finally:
        for descriptor in open_directories:
            os.close(descriptor)


def tree_bytes(tree: Path, limit_bytes: int) -> int:
    """What the tree takes of the disk, holes left out; counting stops soon above the limit.

    A file with several names counts once, and no tree is 0. A tree that is too deep to be counted is above every limit.
    """
    if not tree.is_dir():
        return 0
    total, seen = 0, set[tuple[int, int]]()
    try:
        for entry in walk(tree):
            total += INODE_BYTES
            file = (entry.status.st_dev, entry.status.st_ino)
            if entry.status.st_nlink == 1 or stat.S_ISDIR(entry.status.st_mode) or file not in seen:
                total += entry.status.st_blocks * 512
            if entry.status.st_nlink > 1:
                seen.add(file)
            if total > limit_bytes:
                break
    except TooDeep:
        return limit_bytes + 1
    return total


def _names(directory: int) -> list[str]:
    """Sorted backwards, for they are taken from the end."""
    return sorted(os.listdir(directory), reverse=True)


def _entry(name: str, path: tuple[str, ...], directory: int) -> Entry | None:
    try:
        return Entry(name, path, os.stat(name, dir_fd=directory, follow_symlinks=False), directory)
    except FileNotFoundError:
        return None


def _open(entry: Entry) -> int | None:
    try:
        return os.open(entry.name, _DIRECTORY, dir_fd=entry.directory)
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return None
