"""The tool ls: what is in a folder."""

from __future__ import annotations

import os
from typing import Any

from .base import Parameter, Tool, Toolbox, ToolError
from .paths import inside

MAX_ENTRIES = 500


def _ls(toolbox: Toolbox, arguments: dict[str, Any]) -> str:
    path = arguments.get("path", ".")
    real = inside(toolbox, path)
    if not os.path.isdir(real):
        raise ToolError(f"{path} is no directory" if os.path.exists(real) else f"{path} does not exist")
    with os.scandir(real) as entries:
        lines = sorted(_line(entry) for entry in entries)
    if len(lines) > MAX_ENTRIES:
        lines[MAX_ENTRIES:] = [f"[{len(lines) - MAX_ENTRIES} more]"]
    return "\n".join(lines) or "[the folder is empty]"


def _line(entry: os.DirEntry[str]) -> str:
    if entry.is_symlink():
        return f"{entry.name} -> {os.readlink(entry.path)}"
    if entry.is_dir():
        return f"{entry.name}/"
    return f"{entry.name}  {entry.stat(follow_symlinks=False).st_size} bytes"


LS = Tool(
    name="ls",
    description="List a folder of the workspace: folders end with a slash, files have their size.",
    parameters=(Parameter("path", "string", "The folder; the workspace when left out."),),
    run=_ls,
)
