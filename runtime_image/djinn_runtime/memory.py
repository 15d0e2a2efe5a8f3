"""What the kernel does when the memory of the container's control group is used up."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

_ROOT = "/sys/fs/cgroup"
_SCORE = "/proc/self/oom_score_adj"
_score: list[int] = []  # its descriptor, once it is open
_MOST = b"1000"  # proc(5): whoever has it is killed before all others


@contextlib.contextmanager
def offered_first() -> Iterator[None]:
    """What is started inside is killed by the kernel before the runtime, which has to tell of it.

    The score is inherited, so it is our own for that moment; one at a time may do this.
    """
    before = _swap(_MOST)
    try:
        yield
    finally:
        _swap(before)


def open_score() -> None:
    """Open our score, which a process that hides its memory may not do any more."""
    if not _score:
        with contextlib.suppress(OSError):
            _score.append(os.open(_SCORE, os.O_RDWR | os.O_CLOEXEC))


def _swap(score: bytes) -> bytes:
    """Set our score, where there is one; the one before."""
    open_score()
    with contextlib.suppress(OSError):
        for file in _score:
            before = os.pread(file, 16, 0).strip()
            os.pwrite(file, score, 0)
            return before
    return score


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
