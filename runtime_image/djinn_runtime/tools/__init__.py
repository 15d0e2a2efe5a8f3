"""The tools of the built-in agent."""

from __future__ import annotations

from .base import Tool
from .bash import BASH
from .edit import EDIT
from .ending import FAIL, complete_tool
from .find import FIND
from .grep import GREP
from .ls import LS
from .read import READ
from .write import WRITE

TOOLS: dict[str, Tool] = {tool.name: tool for tool in (READ, WRITE, EDIT, BASH, GREP, FIND, LS)}
ENDING_NAMES = ("complete", "fail")


def offered(
    names: list[str], outputs: list[str], results: list[str] | None = None
) -> tuple[dict[str, Tool], list[str]]:
    """The named tools with `complete` and `fail`, which are always there, and the names that are unknown."""
    tools = {name: TOOLS[name] for name in names if name in TOOLS}
    unknown = [name for name in names if name not in TOOLS and name not in ENDING_NAMES]
    return {**tools, "complete": complete_tool(outputs, results or []), "fail": FAIL}, unknown
