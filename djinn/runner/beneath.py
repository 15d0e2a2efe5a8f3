"""Files in a directory that someone else can write: opened by descriptor, step by step, and never through a link.

Whoever runs in a container may put anything at any name that it can write: a link to a file of the host, a pipe that
nobody writes to, a device. So each part of a path is opened in the directory before it, with O_NOFOLLOW, and what was
opened is looked at before it is used; owner and mode are given to descriptors. `root` itself must lie in a directory of
the host's own. The test `tests/runner/test_beneath.py` looks for calls in the host's code that go past this module.
"""

from __future__ import annotations

import errno
import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

Owner = tuple[int, int]

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_SAFE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class NotRegular(OSError):
    """There is something else at that name than a regular file: a link, a directory, a pipe, a device."""

    def __init__(self, name: str) -> None:
        super().__init__(errno.EINVAL, "is no regular file", name)


def open_file(root: Path, name: str, flags: int = os.O_RDONLY) -> int:
    """A descriptor of the regular file `name`, parts divided by `/`, below `root`.

    Raises `NotRegular`, and OSError when it does not exist or may not be opened. `flags` must neither create nor
    truncate: what is there is looked at first.
    """
    with _parent(root, name) as (directory, last):
        return _regular(directory, last, flags)


def read_file(root: Path, name: str, *, most_bytes: int) -> bytes:
    """The first bytes of the regular file below `root`."""
    with os.fdopen(open_file(root, name), "rb") as file:
        return file.read(most_bytes)


def replace_file(root: Path, name: str, content: bytes, *, mode: int, owner: Owner | None = None) -> None:
    """Put a new file at the name in one step. Whatever stood there is gone: a link itself, not what it led to."""
    with _parent(root, name) as (directory, last):
        fresh = f".{last}.{uuid.uuid4().hex}"
        file = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _SAFE, 0o600, dir_fd=directory)
        try:
            with os.fdopen(file, "wb", closefd=False) as opened:
                opened.write(content)
            _hand_over(file, mode, owner)
            os.rename(fresh, last, src_dir_fd=directory, dst_dir_fd=directory)
        except BaseException:
            os.unlink(fresh, dir_fd=directory)
            raise
        finally:
            os.close(file)


def ensure_file(root: Path, name: str, *, mode: int, owner: Owner | None = None) -> None:
    """An empty file unless there is a regular one; its content stays. Raises `NotRegular`."""
    with _parent(root, name) as (directory, last):
        try:
            file = os.open(last, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _SAFE, 0o600, dir_fd=directory)
        except FileExistsError:
            file = _regular(directory, last, os.O_RDONLY)
        try:
            _hand_over(file, mode, owner)
        finally:
            os.close(file)


def ensure_directory(root: Path, name: str, *, mode: int, owner: Owner | None = None) -> None:
    """A directory, made unless there is one. Raises OSError when something else stands there."""
    with _parent(root, name) as (directory, last):
        with suppress(FileExistsError):  # opened below: a link or a file is refused there
            os.mkdir(last, 0o700, dir_fd=directory)
        made = os.open(last, _DIRECTORY, dir_fd=directory)
        try:
            _hand_over(made, mode, owner)
        finally:
            os.close(made)


def give_directory(path: Path, owner: Owner) -> None:
    """Let someone else own the directory, not what is in it. Raises OSError when there is a link instead."""
    directory = os.open(path, _DIRECTORY)
    try:
        os.fchown(directory, *owner)
    finally:
        os.close(directory)


def make_directory(root: Path, name: str) -> bool:
    """Make the directory; whether it is new."""
    with _parent(root, name) as (directory, last):
        try:
            os.mkdir(last, 0o700, dir_fd=directory)
        except FileExistsError:
            return False
        return True


@contextmanager
def _parent(root: Path, name: str) -> Iterator[tuple[int, str]]:
    """The open directory that holds the name's last part, and that part."""
    *parts, last = name.split("/")
    if any(part in ("", ".", "..") for part in (*parts, last)):
        raise ValueError(f"not a path below a directory: {name!r}")
    directory = os.open(root, _DIRECTORY)
    try:
        for part in parts:
            inner = os.open(part, _DIRECTORY, dir_fd=directory)
            os.close(directory)
            directory = inner
        yield directory, last
    finally:
        os.close(directory)


def _regular(directory: int, name: str, flags: int) -> int:
    try:
        file = os.open(name, flags | _SAFE, dir_fd=directory)
    except OSError as exc:
        if exc.errno in (errno.ELOOP, errno.ENXIO, errno.EISDIR):
            raise NotRegular(name) from exc
        raise
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise NotRegular(name)
    return file


def _hand_over(descriptor: int, mode: int, owner: Owner | None) -> None:
    if owner is not None:
        os.fchown(descriptor, *owner)
    os.fchmod(descriptor, mode)
