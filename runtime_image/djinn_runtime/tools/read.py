"""The tool read: lines of a text file, numbered."""

from __future__ import annotations

from typing import Any, BinaryIO

from .base import Parameter, Tool, Toolbox, ToolError
from .paths import inside, open_regular

DEFAULT_LINES = 2000
MAX_LINE_BYTES = 2000
_PROBE_BYTES = 8192


def _read(toolbox: Toolbox, arguments: dict[str, Any]) -> str:
    path = arguments["path"]
    first = arguments.get("offset", 1)
    limit = arguments.get("limit", DEFAULT_LINES)
    if first < 1 or limit < 1:
        raise ToolError("offset and limit count from 1")
    with open_regular(inside(toolbox, path), path) as file:
        if b"\0" in file.read(_PROBE_BYTES):
            raise ToolError(f"{path} is a binary file")
        file.seek(0)
        lines, next_line, seen = _take(file, first, limit, toolbox.brief.tool_output_bytes)
    if not lines and first > 1:
        raise ToolError(f"{path} has {seen} lines; offset {first} is behind its end")
    if next_line is not None:
        lines.append(f"[the file goes on; read on with offset {next_line}]")
    return "\n".join(lines) or "[the file is empty]"


def _take(file: BinaryIO, first: int, limit: int, max_bytes: int) -> tuple[list[str], int | None, int]:
    """The numbered lines, the number of the first line left out, and how many lines were passed."""
    lines: list[str] = []
    number = size = 0
    while True:
        raw = _line(file)
        if not raw:
            return lines, None, number
        number += 1
        if number < first:
            continue
        text = f"{number:6}\t{_shown(raw)}"
        size += len(text.encode()) + 1
        if len(lines) >= limit or (size > max_bytes and lines):
            return lines, number, number
        lines.append(text)


def _line(file: BinaryIO) -> bytes:
    """The next line's beginning; a line without end is passed over piece by piece."""
    raw = piece = file.readline(MAX_LINE_BYTES + 2)
    while piece and not piece.endswith(b"\n"):
        piece = file.readline(1024 * 1024)
    return raw


def _shown(raw: bytes) -> str:
    line = raw.rstrip(b"\r\n")
    if len(line) <= MAX_LINE_BYTES:
        return line.decode("utf-8", "replace")
    return line[:MAX_LINE_BYTES].decode("utf-8", "ignore") + " [the line goes on]"


READ = Tool(
    name="read",
    description="Read a text file of the workspace. Lines are numbered.",
    parameters=(
        Parameter("path", "string", "The file, relative to the workspace.", True),
        Parameter("offset", "integer", "The first line to read, from 1.", more=(("minimum", 1),)),
        Parameter("limit", "integer", f"How many lines; {DEFAULT_LINES} when left out.", more=(("minimum", 1),)),
    ),
    run=_read,
)
