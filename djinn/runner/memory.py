"""What the kernel counts in the control group of a container that runs on this machine."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
_COUNT = re.compile(r"^oom_kill (\d+)$", re.MULTILINE)


def oom_kills(pid: int, container: str) -> int:
    """How many of the container's processes the kernel has killed for want of memory; 0 when that cannot be known.

    `pid` is its first process as the engine tells it, `container` its id: an engine on another machine, or one that
    counts processes otherwise, tells a number that belongs to somebody else here.
    """
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text(errors="replace").splitlines()
    except OSError:
        return 0
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if container not in path:
            continue
        if "memory" in controllers.split(","):
            return _count(ROOT / "memory" / path.lstrip("/") / "memory.oom_control")
        if not controllers and (count := _count(ROOT / path.lstrip("/") / "memory.events")):
            return count
    return 0


def _count(path: Path) -> int:
    try:
        found = _COUNT.search(path.read_text(errors="replace"))
    except OSError:  # the group is gone, with its last process
        return 0
    return int(found[1]) if found else 0
