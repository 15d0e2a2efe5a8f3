"""Small files that other processes read while they are written, and trees that others have written."""

from __future__ import annotations

import json
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path


def write_json(path: Path, value: object) -> None:
    """Replace the file in one step; it is on the disk when this returns."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}.new")
    with temporary.open("w") as file:
        json.dump(value, file)
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
    """Remove the directory with all below it, also what its owner made read-only; absent is no error."""
    if path.is_dir():
        shutil.rmtree(path, onerror=_open_and_retry)


def _open_and_retry(function: Callable[..., object], name: str, info: object) -> None:
    """Some tools make directories without the right to write (Go's module cache): give it back and try once more."""
    path = Path(name)
    if not os.path.lexists(name):
        return
    for directory in (path.parent, path):
        if stat.S_ISDIR(os.lstat(directory).st_mode):
            directory.chmod(stat.S_IRWXU)
    if stat.S_ISDIR(os.lstat(name).st_mode):
        shutil.rmtree(name)
    else:
        path.unlink()
