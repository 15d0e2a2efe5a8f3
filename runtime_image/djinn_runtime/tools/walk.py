"""Walking the files of the workspace for find and grep: sorted, no links followed, version control skipped."""

from __future__ import annotations

import os
from collections.abc import Iterator
from fnmatch import fnmatchcase

SKIPPED = frozenset({".git", ".hg", ".svn"})


def files(root: str) -> Iterator[str]:
    """The path of every entry that is no directory, below a directory; or the file itself."""
    if not os.path.isdir(root):
        yield root
        return
    for directory, names, others in os.walk(root):
        names[:] = sorted(name for name in names if name not in SKIPPED)
        for name in sorted(others):
            yield os.path.join(directory, name)


def matches(pattern: str, path: str) -> bool:
    """Whether a relative path fits a glob: `**` is any number of folders; without a slash the name alone is asked."""
    if "/" not in pattern:
        return fnmatchcase(os.path.basename(path), pattern)
    return _match_parts(pattern.strip("/").split("/"), path.split("/"))


def _match_parts(pattern: list[str], parts: list[str]) -> bool:
    """Follows all places in the pattern at once, so no pattern takes more than pattern x path steps."""
    places: set[int] = _spread(pattern, {0})
    for part in parts:
        reached = set()
        for place in places:
            if place < len(pattern) and pattern[place] == "**":
                reached.add(place)
            elif place < len(pattern) and fnmatchcase(part, pattern[place]):
                reached.add(place + 1)
        places = _spread(pattern, reached)
    return len(pattern) in places


def _spread(pattern: list[str], places: set[int]) -> set[int]:
    found = set(places)
    for place in sorted(places):
        while place < len(pattern) and pattern[place] == "**":
            place += 1
            found.add(place)
    return found
