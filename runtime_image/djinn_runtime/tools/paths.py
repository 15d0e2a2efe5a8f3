"""Paths inside the workspace: where the file tools may go."""

from __future__ import annotations

import os
import stat
from typing import BinaryIO

from .base import Toolbox, ToolError


def inside(toolbox: Toolbox, path: str) -> str:
    """The real path of a tool's argument, links resolved. Raises `ToolError` when it leaves the workspace."""
    root = os.path.realpath(toolbox.brief.workspace)
    real = os.path.realpath(os.path.join(root, path))
    if real != root and not real.startswith(root.rstrip("/") + "/"):
        raise ToolError(f"{path} is outside of the workspace {toolbox.brief.workspace}")
    return real


def shown(toolbox: Toolbox, real: str) -> str:
    """A real path as the model sees it: relative to the workspace."""
    return os.path.relpath(real, os.path.realpath(toolbox.brief.workspace))


def open_regular(real: str, path: str) -> BinaryIO:
    """The file opened for reading; raises `ToolError` for what is no regular file."""
    try:  # a named pipe without a writer must not hang the tool
        file = os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError as exc:
        raise ToolError(f"{path} does not exist") from exc
    mode = os.fstat(file).st_mode
    if stat.S_ISREG(mode):
        return os.fdopen(file, "rb")
    os.close(file)
    raise ToolError(f"{path} is a directory: use ls" if stat.S_ISDIR(mode) else f"{path} is no regular file")
