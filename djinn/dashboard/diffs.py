"""A unified diff cut into files and lines, to be coloured."""

from __future__ import annotations

from dataclasses import dataclass, field

from djinn.dashboard.texts import shown

MOST_LINES = 3000
MOST_LINE_CHARACTERS = 2000


@dataclass(frozen=True)
class DiffLine:
    """A line with its sign; `kind` is added, removed, place or same."""

    kind: str
    text: str


@dataclass
class DiffFile:
    """What changed in one file."""

    path: str
    heading: str = ""
    """Which of several diffs it begins; empty inside of one."""
    added: int = 0
    removed: int = 0
    lines: list[DiffLine] = field(default_factory=list)


@dataclass(frozen=True)
class Diff:
    """All files, and how many lines are not shown."""

    files: list[DiffFile]
    hidden_lines: int


def read_diff(text: str) -> Diff:
    """The diff's files. Lines are counted to the end, but only the first `MOST_LINES` are kept."""
    files: list[DiffFile] = []
    kept = hidden = 0
    is_head = True
    heading = ""
    for line in text.split("\n"):
        if line.startswith("diff --git "):
            files.append(DiffFile(shown(line.rpartition(" b/")[2] or line), heading))
            is_head, heading = True, ""
            continue
        if line.startswith("# "):  # no line of a diff begins so
            heading = shown(line[2:])
            continue
        if not files:
            continue
        is_head = is_head and not line.startswith("@@")
        kind = "head" if is_head else _kind(line)
        files[-1].added += kind == "added"
        files[-1].removed += kind == "removed"
        if not line or (is_head and line.startswith(("index ", "--- ", "+++ "))):
            continue
        kept, hidden = (kept + 1, hidden) if kept < MOST_LINES else (kept, hidden + 1)
        if not hidden:
            files[-1].lines.append(DiffLine(kind, shown(line[:MOST_LINE_CHARACTERS])))
    return Diff(files, hidden)


def _kind(line: str) -> str:
    return {"+": "added", "-": "removed", "@": "place"}.get(line[:1], "same")
