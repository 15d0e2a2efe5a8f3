"""The journal's writer: numbered whole lines, one lock, small deltas joined, room kept for the last record."""

from __future__ import annotations

import os
import threading
import time
from typing import Any, Callable

from .protocol import (
    EXIT_FINISHED,
    EXIT_JOURNAL_BROKEN,
    EXIT_NOT_SYNCED,
    MAX_RECORD_BYTES,
    Record,
    encode_record,
)
from .reserve import Reserve

FLUSH_SECONDS = 0.05
FLUSH_CHARACTERS = 2048
PIECE_CHARACTERS = 8192  # JSON writes a control character as 6 bytes: a piece always fits one record
_FINISH_TRIES = 20
_FINISH_PAUSE_SECONDS = 0.05

OnFailure = Callable[[str, str], None]


class JournalStopped(Exception):
    """Nothing more can be recorded: the journal is sealed, full or broken."""


class Journal:
    """Appends records to one file.

    `on_failure(reason, message)` is called once, from whichever thread found out, when a record no longer fits into
    `max_bytes` (reason "output_limit") or cannot be written (reason "disk"). From then on, and after `seal`, every
    call but `finish` raises `JournalStopped`.
    """

    def __init__(self, path: str, max_bytes: int, reserve: Reserve, on_failure: OnFailure) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        self._max_bytes = max_bytes
        self._kept_bytes = min(MAX_RECORD_BYTES, max_bytes // 2)
        self._reserve = reserve
        self._on_failure = on_failure
        self._changed = threading.Condition(threading.Lock())
        self._is_open = True
        self._is_torn = False
        self._n = 0
        self._size = 0
        self._key: tuple[str, dict[str, Any]] = ("", {})
        self._pieces: list[str] = []
        self._characters = 0
        self._due = 0.0
        threading.Thread(target=self._flush_when_due, name="journal", daemon=True).start()

    def append(self, kind: str, **data: Any) -> None:
        """Record one fact, after all deltas that came before it."""
        with self._changed:
            self._require_open()
            self._flush()
            self._write(kind, data)

    def stream(self, kind: str, text: str, **data: Any) -> None:
        """Record a piece of running text; neighbours of the same kind and data are joined for 50 ms or 2 KB."""
        with self._changed:
            self._require_open()
            if self._pieces and self._key != (kind, data):
                self._flush()
            for start in range(0, len(text), PIECE_CHARACTERS):
                self._collect(kind, text[start : start + PIECE_CHARACTERS], data)

    def seal(self) -> None:
        """Write what waits and take nothing more but `finish`."""
        with self._changed:
            try:
                if self._is_open:
                    self._flush()
            except JournalStopped:
                pass  # on_failure was told
            self._is_open = False
            self._changed.notify_all()

    def finish(self, data: dict[str, Any], bare: dict[str, Any]) -> int:
        """Write the last record and sync it to the disk; the exit code that says how far that went.

        `bare` is written instead when `data` does not fit into the journal any more.
        """
        with self._changed:
            line = self._encode("finished", data)
            if self._size + len(line) > self._max_bytes:
                line = self._encode("finished", bare)
            number = self._n + 1
            for _ in range(_FINISH_TRIES):
                if self._try_to_finish(line if self._n < number else b""):
                    self._reserve.release()
                    return EXIT_FINISHED
                self._reserve.release()
                time.sleep(_FINISH_PAUSE_SECONDS)
            return EXIT_JOURNAL_BROKEN if self._n < number else EXIT_NOT_SYNCED

    def _try_to_finish(self, line: bytes) -> bool:
        try:
            self._put(line)
            os.fsync(self._file)
        except OSError:
            return False
        return True

    def _require_open(self) -> None:
        if not self._is_open:
            raise JournalStopped("the journal is closed")

    def _collect(self, kind: str, text: str, data: dict[str, Any]) -> None:
        if self._characters + len(text) > PIECE_CHARACTERS:
            self._flush()
        if not self._pieces:
            self._key = (kind, data)
            self._due = time.monotonic() + FLUSH_SECONDS
        self._pieces.append(text)
        self._characters += len(text)
        if self._characters >= FLUSH_CHARACTERS:
            self._flush()
        elif len(self._pieces) == 1:
            self._changed.notify_all()

    def _flush_when_due(self) -> None:
        with self._changed:
            while self._is_open:
                left = self._due - time.monotonic() if self._pieces else None
                if left is None or left > 0:
                    self._changed.wait(left)
                    continue
                try:
                    self._flush()
                except JournalStopped:
                    return

    def _flush(self) -> None:
        if not self._pieces:
            return
        (kind, data), text = self._key, "".join(self._pieces)
        self._pieces, self._characters = [], 0
        self._write(kind, {**data, "text": text})

    def _write(self, kind: str, data: dict[str, Any]) -> None:
        line = self._encode(kind, data)
        if self._size + len(line) > self._max_bytes - self._kept_bytes:
            self._fail("output_limit", f"the journal reached its limit of {self._max_bytes} bytes")
        try:
            self._put(line)
        except OSError as exc:
            self._fail("disk", f"the journal could not be written: {exc.strerror}")

    def _encode(self, kind: str, data: dict[str, Any]) -> bytes:
        return encode_record(Record(n=self._n + 1, t=int(time.time() * 1000), type=kind, data=data))

    def _put(self, line: bytes) -> None:
        """Write a whole line or raise; half a line is closed by a newline before the next one."""
        left = memoryview(b"\n" + line if self._is_torn else line)
        size = len(left)
        try:
            while left:
                left = left[os.write(self._file, left) :]
        except OSError:
            if len(left) < size:
                self._is_torn = True
                self._size += size - len(left)
            if len(left) == 1:
                self._n += 1  # only the newline is missing: the record will be read
            raise
        self._is_torn = False
        self._size += size
        self._n += 1 if line else 0

    def _fail(self, reason: str, message: str) -> None:
        self._is_open = False
        self._changed.notify_all()
        self._on_failure(reason, message)
        raise JournalStopped(message)
