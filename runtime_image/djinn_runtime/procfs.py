"""Which processes descend from another, read from /proc."""

from __future__ import annotations

import os


def descendants(pid: int) -> set[int]:
    """The live (not zombie) descendants of a process; empty where there is no /proc."""
    children = _children_by_parent()
    found: set[int] = set()
    ahead = [pid]
    while ahead:
        for child in children.get(ahead.pop(), []):
            if child not in found:
                found.add(child)
                ahead.append(child)
    return {each for each in found if _state(each) not in ("Z", "X", "")}


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


def _state(pid: int) -> str:
    fields = _stat(pid)
    return fields[0] if fields else ""


def _stat(pid: int) -> list[str]:
    """State, parent and the rest of /proc/PID/stat; empty when the process is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()  # the command before it may hold spaces and parentheses
