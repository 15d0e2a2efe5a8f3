"""Text files as edit and write change them: read whole, replaced at once, recorded as a change."""

from __future__ import annotations

import os
import stat

from .base import Toolbox, ToolError
from .paths import open_regular, shown

MAX_TEXT_BYTES = 8 * 1024 * 1024
_MAX_COMPARED = 250_000


def read_text(real: str, path: str) -> str:
    """The file's text, newlines as they are. Raises `ToolError` for a file that is too large or no UTF-8."""
    with open_regular(real, path) as file:
        content = file.read(MAX_TEXT_BYTES + 1)
    if len(content) > MAX_TEXT_BYTES:
        raise ToolError(f"{path} is larger than {MAX_TEXT_BYTES} bytes; change it with bash")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as exc:
        raise ToolError(f"{path} is no UTF-8 text: {exc}") from exc


def replace_file(real: str, text: str) -> None:
    """Write the text in one step: a reader, or a full disk, leaves the old file or the new one, never half of it."""
    directory, name = os.path.split(real)
    draft = os.path.join(directory, f".{name[:200]}.{os.getpid()}.draft")
    try:
        if os.path.lexists(draft):
            os.unlink(draft)  # of a runtime that was killed, or a trap
        with open(draft, "xb") as file:
            file.write(text.encode("utf-8", "replace"))
        if os.path.exists(real):
            os.chmod(draft, stat.S_IMODE(os.stat(real).st_mode))
        os.replace(draft, real)
    except OSError:
        if os.path.lexists(draft):
            os.unlink(draft)
        raise


def record_change(toolbox: Toolbox, real: str, change: str, before: str, after: str) -> tuple[int, int]:
    """Write `file_changed` to the journal; the numbers of added and removed lines."""
    added, removed = changed_lines(before.splitlines(), after.splitlines())
    toolbox.journal.append("file_changed", path=shown(toolbox, real), change=change, added=added, removed=removed)
    return added, removed


def changed_lines(before: list[str], after: list[str]) -> tuple[int, int]:
    """How many lines were added and removed; a large rewritten part counts as a whole."""
    start = 0
    while start < min(len(before), len(after)) and before[start] == after[start]:
        start += 1
    end = 0
    while end < min(len(before), len(after)) - start and before[-1 - end] == after[-1 - end]:
        end += 1
    before, after = before[start : len(before) - end], after[start : len(after) - end]
    same = 0
    if len(before) * len(after) <= _MAX_COMPARED:
        import difflib

        matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
        same = sum(block.size for block in matcher.get_matching_blocks())
    return len(after) - same, len(before) - same
