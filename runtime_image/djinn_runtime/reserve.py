"""Room on the disk that is kept for the journal's last record."""

from __future__ import annotations

import contextlib
import os

RESERVE_BYTES = 128 * 1024
RESERVE_NAME = "reserve"


class Reserve:
    """A file that is as large as it looks until it is released."""

    def __init__(self, directory: str) -> None:
        self._path = os.path.join(directory, RESERVE_NAME)
        try:
            self._take()
        except OSError:
            self.release()  # no room even now: the journal's first write tells what is wrong

    def _take(self) -> None:
        file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(file, 0, RESERVE_BYTES)
        finally:
            os.close(file)

    def release(self) -> None:
        """Give the room back; may be repeated."""
        with contextlib.suppress(OSError):  # it is gone, or cannot go: the write that needs the room tells
            os.unlink(self._path)
