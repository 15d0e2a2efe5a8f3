"""The tool write: a whole file."""

from __future__ import annotations

import os
from typing import Any

from .base import Parameter, Tool, Toolbox, ToolError
from .content import read_text, record_change, replace_file
from .paths import inside


def _write(toolbox: Toolbox, arguments: dict[str, Any]) -> str:
    path, content = arguments["path"], arguments["content"]
    real = inside(toolbox, path)
    if os.path.exists(real) and not os.path.isfile(real):
        raise ToolError(f"{path} exists and is no regular file")
    change = "modified" if os.path.exists(real) else "created"
    before = _before(real, path)
    os.makedirs(os.path.dirname(real), exist_ok=True)
    replace_file(real, content)
    added, _ = record_change(toolbox, real, change, before, content)
    return f"{change} {path}: {len(content.splitlines())} lines, {added} of them new"


def _before(real: str, path: str) -> str:
    """The old text, for counting its lines; none when there was none or it was no text."""
    if not os.path.exists(real):
        return ""
    try:
        return read_text(real, path)
    except ToolError:
        return ""


WRITE = Tool(
    name="write",
    description="Write a whole file of the workspace, replacing what it held. Missing folders are made.",
    parameters=(
        Parameter("path", "string", "The file, relative to the workspace.", True),
        Parameter("content", "string", "The file's whole content.", True),
    ),
    run=_write,
)
