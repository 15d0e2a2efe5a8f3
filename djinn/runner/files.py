"""Small files that other processes read while they are written, and trees that others have written."""

from __future__ import annotations

import json
import os
import shutil
import stat
import uuid
from contextlib import suppress
from pathlib import Path

MOST_LEVELS = 100
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def write_json(path: Path, value: object, *, is_durable: bool = True) -> None:
    """Replace the file in one step; it is on the disk when this returns, unless it need not survive a power cut."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.new")
    with temporary.open("w") as file:
        json.dump(value, file)
        if is_durable:
            file.flush()
            os.fsync(file.fileno())
    temporary.replace(path)


def read_json(path: Path) -> object:
    """The file's value, or None when there is no such file."""
    try:
        text = path.read_text()
    except (FileNotFoundError, NotADirectoryError):
        return None
    value: object = json.loads(text)
    return value


def link_repository(source: Path, target: Path) -> None:
    """Copy a git directory that nobody writes to; its objects, which never change, become hard links where they can."""
    objects = source / "objects"

    def link_or_copy(name: str, copy: str) -> str:
        if Path(name).is_relative_to(objects):
            try:
                Path(name).chmod(0o444)  # whatever the umask: the containers' user reads what stays the host's
                os.link(name, copy, follow_symlinks=False)
                return copy
            except OSError:
                # No links on this file system, or too many of them: a copy does as well.
                Path(copy).unlink(missing_ok=True)
        return shutil.copy2(name, copy, follow_symlinks=False)

    shutil.copytree(source, target, symlinks=True, copy_function=link_or_copy, ignore=_unfinished)


def _unfinished(directory: str, names: list[str]) -> list[str]:
    """What a git that was killed has left behind."""
    return [name for name in names if name.endswith(".lock") or name.startswith("tmp_")]


def remove_tree(path: Path) -> None:
    """Remove the directory with all below it, however deep, also what its owner made read-only; absent is no error.

    Some tools make directories without the right to write (Go's module cache), and hostile ones nest them by thousands.
    """
    try:
        top = os.open(path, _DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return
    except PermissionError:
        _permit(str(path))
        top = os.open(path, _DIRECTORY)
    try:
        _empty(top)
    finally:
        os.close(top)
    with suppress(FileNotFoundError):
        path.rmdir()


def _empty(top: int) -> None:
    """Remove everything in the open directory; what is too deep to hold its way open is first moved up into it.

    Another process may be removing the same.
    """
    levels = [_Level("", top)]
    try:
        while levels[0].names or len(levels) > 1:
            with suppress(FileNotFoundError):
                if levels[-1].names:
                    _remove_name(levels)
                else:
                    _leave(levels)
    finally:
        for level in levels[1:]:
            os.close(level.directory)


def _remove_name(levels: list[_Level]) -> None:
    """Take the last level's next name: a file goes, a directory becomes the next level."""
    here, name = levels[-1].directory, levels[-1].names.pop()
    if not stat.S_ISDIR(os.stat(name, dir_fd=here, follow_symlinks=False).st_mode):
        os.unlink(name, dir_fd=here)
    elif len(levels) < MOST_LEVELS:
        levels.append(_Level(name, _open_directory(name, here)))
    else:
        moved = str(uuid.uuid4())
        _permit(name, here)  # a directory changes when it gets another parent
        os.rename(name, moved, src_dir_fd=here, dst_dir_fd=levels[0].directory)
        levels[0].names.append(moved)


def _leave(levels: list[_Level]) -> None:
    level = levels.pop()
    os.close(level.directory)
    os.rmdir(level.name, dir_fd=levels[-1].directory)


class _Level:
    """An open directory and the names in it that are still to be removed; its owner gets every right to it."""

    def __init__(self, name: str, directory: int) -> None:
        self.name = name
        self.directory = directory
        if os.fstat(directory).st_mode & stat.S_IRWXU != stat.S_IRWXU:
            os.fchmod(directory, stat.S_IRWXU)
        self.names = os.listdir(directory)


def _open_directory(name: str, directory: int) -> int:
    try:
        return os.open(name, _DIRECTORY, dir_fd=directory)
    except PermissionError:
        _permit(name, directory)
        return os.open(name, _DIRECTORY, dir_fd=directory)


def _permit(name: str, directory: int | None = None) -> None:
    """Give the owner every right to a directory that may not even be opened; a link in its place is left alone."""
    found = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    try:
        Path(f"/proc/self/fd/{found}").chmod(stat.S_IRWXU)
    finally:
        os.close(found)
