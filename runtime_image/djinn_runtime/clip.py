"""Text cut to a size: head and tail are kept, the middle is counted."""

from __future__ import annotations

from collections import deque


class Clip:
    """Collects bytes without end and holds at most `max_bytes` of them."""

    def __init__(self, max_bytes: int) -> None:
        self._head_bytes = max_bytes // 2
        self._tail_bytes = max_bytes - self._head_bytes
        self._head = bytearray()
        self._tail: deque[bytes] = deque()
        self._tail_size = 0
        self._cut = 0

    def add(self, chunk: bytes) -> None:
        """Take the next bytes."""
        room = self._head_bytes - len(self._head)
        self._head += chunk[:room]
        rest = chunk[room:]
        if not rest:
            return
        self._tail.append(rest)
        self._tail_size += len(rest)
        while self._tail_size - len(self._tail[0]) >= self._tail_bytes:
            gone = len(self._tail.popleft())
            self._tail_size -= gone
            self._cut += gone

    def text(self) -> str:
        """What was kept, with one line where bytes are missing."""
        tail = b"".join(self._tail)
        extra = max(0, len(tail) - self._tail_bytes)
        cut = self._cut + extra
        if not cut:
            return (bytes(self._head) + tail).decode("utf-8", "replace")
        head, end = bytes(self._head).decode("utf-8", "ignore"), tail[extra:].decode("utf-8", "ignore")
        return f"{head}\n[... {cut} bytes cut ...]\n{end}"


def cut(text: str, max_bytes: int) -> str:
    """The text with its middle cut out when it is longer than `max_bytes` of UTF-8."""
    clip = Clip(max_bytes)
    clip.add(text.encode("utf-8", "replace"))
    return clip.text()
