"""Which processes descend from another, read from /proc."""

from __future__ import annotations

import os


def descendants(pid: int) -> set[int]:
    """The descendants of a process of which any thread lives; empty where there is no /proc."""
    children = _children_by_parent()
    found: set[int] = set()
    ahead = [pid]
    while ahead:
        for child in children.get(ahead.pop(), []):
            if child not in found:
                found.add(child)
                ahead.append(child)
    return {each for each in found if _lives(each)}


def _children_by_parent() -> dict[int, list[int]]:
    children: dict[int, list[int]] = {}
    try:
        names = os.listdir("/proc")
    except OSError:
        return children
    for name in names:
        if name.isdigit():
            fields = _stat(int(name))
            if fields:
                children.setdefault(int(fields[1]), []).append(int(name))
    return children


def _lives(pid: int) -> bool:
    """Whether any thread of it does: a process whose first thread has ended is a zombie by its own state."""
    try:
        threads = os.listdir(f"/proc/{pid}/task")
    except OSError:
        return False
    return any(fields[0] not in ("Z", "X") for thread in threads if (fields := _stat(pid, f"/task/{thread}")))


def _stat(pid: int, thread: str = "") -> list[str]:
    """State, parent and the rest of /proc/PID/stat; empty when the process is gone."""
    try:
        with open(f"/proc/{pid}{thread}/stat", "rb") as file:
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()  # the command before it may hold spaces and parentheses
