"""The tool bash: a command in the workspace."""

from __future__ import annotations

import codecs
from typing import Any

from ..clip import Clip
from ..shell import Command, Ran, describe, environment, shell
from .base import Parameter, Tool, Toolbox, ToolError

# The share of the journal that one command's live output may take: a flood is the command's failure, not the work's.
_JOURNAL_SHARE = 16


class _Live:
    """A command's output on its way: all of it clipped for the model, a bounded part for the journal."""

    def __init__(self, toolbox: Toolbox) -> None:
        self._journal = toolbox.journal
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._left = toolbox.brief.journal_bytes // _JOURNAL_SHARE
        self._clip = Clip(toolbox.brief.tool_output_bytes)

    def take(self, chunk: bytes) -> None:
        self._clip.add(chunk)
        if self._left <= 0:
            return
        self._left -= len(chunk)
        self._journal.stream("output", self._decoder.decode(chunk))
        if self._left <= 0:
            self._journal.append("log", level="warning", message="the command's further output is not recorded")

    def text(self) -> str:
        self._journal.stream("output", self._decoder.decode(b"", True))
        return self._clip.text()


def _bash(toolbox: Toolbox, arguments: dict[str, Any]) -> str:
    brief = toolbox.brief
    timeout = arguments.get("timeout_seconds", brief.command_timeout_seconds)
    if timeout < 1:
        raise ToolError("timeout_seconds must be at least 1")
    timeout = min(timeout, brief.command_timeout_seconds)
    live = _Live(toolbox)
    ran = Command(
        toolbox.children,
        [shell(), "-c", arguments["command"]],
        directory=brief.workspace,
        variables=environment(brief.environment),
        timeout_seconds=timeout,
        on_output=live.take,
    ).run()
    text = f"{live.text()}\n{_ending(ran, timeout)}".lstrip("\n")
    if ran.is_timed_out:
        raise ToolError(text)
    return text


def _ending(ran: Ran, timeout: int) -> str:
    if ran.is_timed_out:
        return f"[killed after {timeout} s]"
    lines = [f"[{describe(ran.exit_code)}]"]
    if ran.is_held:
        lines.append("[processes in the background hold the output open; what they still write is not shown]")
    return "\n".join(lines)


BASH = Tool(
    name="bash",
    description=(
        "Run a shell command in the workspace: no terminal, no input, stdout and stderr together, then the exit code. "
        "Every call starts a new shell. Processes in the background live on until the work ends."
    ),
    parameters=(
        Parameter("command", "string", "The command.", True),
        Parameter("timeout_seconds", "integer", "When to kill it; the step's limit at most.", more=(("minimum", 1),)),
    ),
    run=_bash,
)
