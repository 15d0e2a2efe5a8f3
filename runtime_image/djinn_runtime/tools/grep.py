"""The tool grep: lines that match a pattern, by ripgrep where the image has it, else by `search.py`.

Both run as a process with a time limit: a pattern that backtracks without end would hold up the whole runtime.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from ..clip import Clip
from ..shell import Command, environment
from .base import Parameter, Tool, Toolbox, ToolError
from .paths import inside, shown

TIMEOUT_SECONDS = 30
_NO_MATCH = 1


def _grep(toolbox: Toolbox, arguments: dict[str, Any]) -> str:
    path = arguments.get("path", ".")
    root = inside(toolbox, path)
    if not os.path.exists(root):
        raise ToolError(f"{path} does not exist")
    variables = environment(toolbox.brief.environment)
    clip = Clip(toolbox.brief.tool_output_bytes)
    ran = Command(
        toolbox.children,
        _arguments(arguments, shown(toolbox, root), variables["PATH"]),
        directory=os.path.realpath(toolbox.brief.workspace),
        variables=variables,
        timeout_seconds=min(TIMEOUT_SECONDS, toolbox.brief.command_timeout_seconds),
        on_output=clip.add,
    ).run()
    text = "\n".join(line[2:] if line.startswith("./") else line for line in clip.text().splitlines())
    if ran.is_timed_out:
        raise ToolError(f"the search took too long and was stopped\n{text}".rstrip())
    if ran.exit_code not in (0, _NO_MATCH):
        raise ToolError(text or f"the search ended with {ran.exit_code}")
    return text or "[no match]"


def _arguments(arguments: dict[str, Any], path: str, search_path: str) -> list[str]:
    import shutil

    glob, is_ignoring = arguments.get("glob", ""), arguments.get("ignore_case", False)
    ripgrep = shutil.which("rg", path=search_path)
    if ripgrep is None:
        script = os.path.join(os.path.dirname(os.path.abspath(__file__)), "search.py")
        return [sys.executable, "-I", "-S", script, arguments["pattern"], path, glob, "i" if is_ignoring else ""]
    options = ["--no-config", "--line-number", "--with-filename", "--no-heading", "--color=never", "--hidden"]
    options += ["--no-ignore", "--glob=!.git", "--max-columns=1000", "--sort=path"]
    options += ["--ignore-case"] if is_ignoring else []
    options += [f"--glob={glob}"] if glob else []
    return [ripgrep, *options, "--regexp", arguments["pattern"], "--", path]


GREP = Tool(
    name="grep",
    description="Search the files of the workspace for a regular expression; gives path:line:text.",
    parameters=(
        Parameter("pattern", "string", "The regular expression.", True),
        Parameter("path", "string", "The file or folder to search; the workspace when left out."),
        Parameter("glob", "string", "Only files that fit this glob, for example *.py."),
        Parameter("ignore_case", "boolean", "Upper and lower case are the same."),
    ),
    run=_grep,
)
