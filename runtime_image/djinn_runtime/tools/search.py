"""ripgrep's place in an image without it: `search.py PATTERN PATH GLOB FLAGS`, exit code 1 when nothing matches."""

from __future__ import annotations

import os
import re
import stat
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .walk import files, matches
else:  # started as a script, outside of its package
    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
    from walk import files, matches

MAX_FILE_BYTES = 16 * 1024 * 1024
_MAX_LINE = 1000
_PROBE_BYTES = 8192


def main(arguments: list[str]) -> int:
    """Write `path:line:text` for every matching line."""
    pattern, root, glob, flags = arguments
    try:
        wanted = re.compile(pattern.encode(), re.IGNORECASE if flags == "i" else 0)
    except (re.error, RecursionError, OverflowError) as exc:
        sys.stdout.write(f"the pattern is no regular expression: {exc}\n")
        return 2
    is_found = False
    for path in files(root):
        if not glob or matches(glob, os.path.relpath(path, root) if os.path.isdir(root) else path):
            is_found = _search(wanted, path) or is_found
    return 0 if is_found else 1


def _search(wanted: re.Pattern[bytes], path: str) -> bool:
    content = _content(path)
    is_found = False
    for number, line in enumerate(content.splitlines(), 1):
        if wanted.search(line):
            is_found = True
            name = os.path.normpath(path).encode("utf-8", "surrogateescape")
            sys.stdout.buffer.write(b"%s:%d:%s\n" % (name, number, line[:_MAX_LINE]))
    return is_found


def _content(path: str) -> bytes:
    """The file's content; nothing for what is large, binary, unreadable or no regular file."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return b""
    with os.fdopen(file, "rb") as opened:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_FILE_BYTES:
            return b""
        content = opened.read()
    return b"" if b"\0" in content[:_PROBE_BYTES] else content


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
