"""The file in which a script hands values back: `KEY=value` lines and `KEY<<END` blocks, as in GitHub Actions."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from .protocol import clean

MAX_FILE_BYTES = 1024 * 1024


class OutputFileError(Exception):
    """The file is not one, too large, or has a line that is neither form."""


def read_outputs(path: str) -> dict[str, str]:
    """The values by name; the last one of a name wins."""
    text = _read(path).decode("utf-8", "replace")
    lines = iter(enumerate(text.replace("\r\n", "\n").split("\n"), 1))
    values: dict[str, str] = {}
    for number, line in lines:
        if not line.strip():
            continue
        name, value = _entry(number, line, lines)
        values[name] = str(clean(value))
    return values


def _entry(number: int, line: str, lines: Iterator[tuple[int, str]]) -> tuple[str, str]:
    equals, block = line.find("="), line.find("<<")
    if block > 0 and (equals < 0 or block < equals):
        name, end = line[:block], line[block + 2 :]
        return name.strip(), "\n".join(_block(number, end, lines))
    if equals > 0:
        return line[:equals].strip(), line[equals + 1 :]
    raise OutputFileError(f"line {number} of the output file is neither KEY=value nor KEY<<END: {line[:80]!r}")


def _block(number: int, end: str, lines: Iterator[tuple[int, str]]) -> Iterator[str]:
    if not end:
        raise OutputFileError(f"line {number} of the output file opens a block without an end word")
    for _, line in lines:
        if line == end:
            return
        yield line
    raise OutputFileError(f"the block from line {number} of the output file has no line {end[:80]!r}")


def _read(path: str) -> bytes:
    try:  # the script may have put anything there: a link, a pipe that nobody writes to
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as exc:
        raise OutputFileError(f"the output file cannot be read: {exc.strerror}") from exc
    with os.fdopen(file, "rb") as opened:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise OutputFileError("the output file is no regular file any more")
        if status.st_size > MAX_FILE_BYTES:
            raise OutputFileError(f"the output file has {status.st_size} bytes, at most {MAX_FILE_BYTES} are read")
        return opened.read(MAX_FILE_BYTES + 1)
