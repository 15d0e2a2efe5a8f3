"""The lock of a workspace: one process at a time, and as long as any git lives that this process has started."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from djinn.runner.git import WorkspaceError

LOCK_SECONDS = 60.0
POLL_SECONDS = 0.05
_NAME = "lock"


@contextmanager
def hold_lock(root: Path, timeout_seconds: float = LOCK_SECONDS, *, make: bool = True) -> Iterator[int]:
    """Keep every other process out of the workspace `root`; the descriptor is what git's processes inherit.

    Raises `WorkspaceError` when someone else keeps it for too long, and `FileNotFoundError` when there is no such
    workspace and `make` is false.
    """
    deadline = time.monotonic() + timeout_seconds
    descriptor = _open(root, make=make)
    try:
        while not _is_taken(descriptor, root):
            if time.monotonic() >= deadline:
                text = f"the workspace {root.name} is in use for {timeout_seconds} s"
                raise WorkspaceError(text, permanent=False, reason="error")
            time.sleep(POLL_SECONDS)
            os.close(descriptor)
            descriptor = -1
            descriptor = _open(root, make=make)
        yield descriptor
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _open(root: Path, *, make: bool) -> int:
    flags = os.O_RDWR | os.O_CLOEXEC
    if make:
        root.mkdir(parents=True, exist_ok=True)
        flags |= os.O_CREAT
    return os.open(root / _NAME, flags, 0o600)


def _is_taken(descriptor: int, root: Path) -> bool:
    """Whether the lock is ours now. A file that its last holder removed with the workspace locks nothing."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(descriptor), os.stat(root / _NAME))
    except (BlockingIOError, FileNotFoundError):
        return False
