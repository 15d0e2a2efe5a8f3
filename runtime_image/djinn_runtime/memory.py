"""What the kernel does when the memory of the container's control group is used up."""

from __future__ import annotations

import contextlib
import os

_ROOT = "/sys/fs/cgroup"
_MOST = b"1000"  # proc(5), oom_score_adj: whoever has it is killed before all others


def offer_first(pid: int) -> None:
    """Let the kernel kill this process and its children before the runtime, which has to tell of it."""
    with contextlib.suppress(OSError):  # it is gone already, or there is no /proc
        file = os.open(f"/proc/{pid}/oom_score_adj", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(file, _MOST)
        finally:
            os.close(file)


def oom_kills() -> int:
    """How many processes of our control group the kernel has killed for want of memory; 0 where nobody counts."""
    for path in _counters():
        with contextlib.suppress(OSError, ValueError), open(path, encoding="ascii") as file:
            for line in file:
                name, _, number = line.partition(" ")
                if name == "oom_kill":
                    return int(number)
    return 0


def _counters() -> list[str]:
    """Where the count may stand. Inside of a container its own group is mounted at the root, whatever it is called."""
    found = []
    with contextlib.suppress(OSError), open("/proc/self/cgroup", encoding="utf-8", errors="replace") as file:
        for line in file:
            _, controllers, path = line.rstrip("\n").split(":", 2)
            if "memory" in controllers.split(","):
                found += [f"{_ROOT}/memory{path}/memory.oom_control", f"{_ROOT}/memory/memory.oom_control"]
            elif not controllers:
                found += [f"{_ROOT}{path}/memory.events", f"{_ROOT}/memory.events"]
    return found
