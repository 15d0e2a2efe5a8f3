"""Looking through a tree that someone else may be changing: no link is followed, at any depth."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

DEEPEST = 200
"""Directories below the root; each level costs a descriptor. Nothing that people make is that deep."""

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
