"""The tool find: files by name."""

from __future__ import annotations

import os
import time
from typing import Any

from .base import Parameter, Tool, Toolbox, ToolError
from .paths import inside, shown
from .walk import files, matches

MAX_FOUND = 500
MAX_SECONDS = 20.0
MAX_PATTERN = 200


def _find(toolbox: Toolbox, arguments: dict[str, Any]) -> str:
    path, pattern = arguments.get("path", "."), arguments["pattern"]
    root = inside(toolbox, path)
    if not os.path.isdir(root):
        raise ToolError(f"{path} is no directory")
    if len(pattern) > MAX_PATTERN:
        raise ToolError(f"the pattern is longer than {MAX_PATTERN} characters")
    limit = time.monotonic() + MAX_SECONDS
    found: list[str] = []
    for each in files(root):
        if matches(pattern, os.path.relpath(each, root)):
            found.append(shown(toolbox, each))
        if len(found) > MAX_FOUND:
            return "\n".join([*found[:MAX_FOUND], f"[only the first {MAX_FOUND} are shown]"])
        if time.monotonic() > limit:
            return "\n".join([*found, f"[stopped after {MAX_SECONDS:.0f} s]"])
    return "\n".join(found) or "[nothing found]"


FIND = Tool(
    name="find",
    description="Find files of the workspace by a glob, for example *.py or src/**/test_*.py.",
    parameters=(
        Parameter("pattern", "string", "The glob; without a slash it is matched against file names.", True),
        Parameter("path", "string", "The folder to search; the workspace when left out."),
    ),
    run=_find,
)
