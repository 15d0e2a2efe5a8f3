"""The tool edit: one text replaced by another in a file."""

from __future__ import annotations

from typing import Any

from .base import Parameter, Tool, Toolbox, ToolError
from .content import read_text, record_change, replace_file
from .paths import inside

_MAX_HINT_LINES = 5000
_MAX_HINT_CHARACTERS = 400


def _edit(toolbox: Toolbox, arguments: dict[str, Any]) -> str:
    path = arguments["path"]
    real = inside(toolbox, path)
    before = read_text(real, path)
    old, new = fitted(before, arguments["old"], arguments["new"])
    if not old:
        raise ToolError("old is empty; use write to make a file")
    if old == new:
        raise ToolError("old and new are the same")
    count = before.count(old)
    if count == 0:
        raise ToolError(f"old was not found in {path}{hint(before, old)}")
    if count > 1 and not arguments.get("replace_all", False):
        raise ToolError(f"old occurs {count} times in {path}; give more context, or set replace_all")
    after = before.replace(old, new)
    replace_file(real, after)
    added, removed = record_change(toolbox, real, "modified", before, after)
    return f"replaced {count} in {path}: {added} lines added, {removed} removed"


def fitted(text: str, old: str, new: str) -> tuple[str, str]:
    """`old` and `new` with the file's line ends: a model writes LF where the file has CRLF."""
    if "\r\n" not in text or "\r\n" in old:
        return old, new
    crlf = old.replace("\n", "\r\n")
    return (crlf if old not in text else old), new.replace("\r\n", "\n").replace("\n", "\r\n")


def hint(text: str, old: str) -> str:
    """Where the file comes nearest to the first line of `old`."""
    import difflib

    wanted = next((line.strip() for line in old.splitlines() if line.strip()), "")[:_MAX_HINT_CHARACTERS]
    lines = [line.strip()[:_MAX_HINT_CHARACTERS] for line in text.splitlines()[:_MAX_HINT_LINES]]
    nearest = difflib.get_close_matches(wanted, lines, n=1, cutoff=0.5)
    if not nearest:
        return "; read the file again"
    return f"; the nearest line is {lines.index(nearest[0]) + 1}: {nearest[0]}"


EDIT = Tool(
    name="edit",
    description="Replace a text in a file of the workspace. It must occur exactly once unless replace_all is set.",
    parameters=(
        Parameter("path", "string", "The file, relative to the workspace.", True),
        Parameter("old", "string", "The exact text to replace, without line numbers.", True),
        Parameter("new", "string", "What takes its place.", True),
        Parameter("replace_all", "boolean", "Replace every occurrence."),
    ),
    run=_edit,
)
