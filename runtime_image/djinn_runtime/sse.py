"""Server-sent events out of a byte stream, as far as chat completions use them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

MAX_EVENT_BYTES = 8 * 1024 * 1024


class EventTooLarge(Exception):
    """One event has more bytes than any answer needs."""


def events(chunks: Iterable[bytes]) -> Iterator[str]:
    """The data of each complete event. Chunks may split anything, also CR from LF and a character's bytes.

    An event that the stream's end cuts off is dropped, as the standard says.
    """
    data: list[str] = []
    size = 0
    for line in _lines(chunks):
        if not line:
            if data:
                yield "\n".join(data)
            data, size = [], 0
            continue
        name, _, value = line.partition(b":")
        if name == b"data":
            size += len(value)
            if size > MAX_EVENT_BYTES:
                raise EventTooLarge(f"an event of over {MAX_EVENT_BYTES} bytes")
            data.append((value[1:] if value.startswith(b" ") else value).decode("utf-8", "replace"))


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The complete lines, which LF, CR or CRLF end."""
    rest: list[bytes] = []
    size = 0
    is_after_cr = False
    for chunk in chunks:
        if is_after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
        if not chunk:
            continue
        is_after_cr = chunk.endswith(b"\r")
        *lines, last = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        for line in lines:
            yield b"".join(rest) + line
            rest, size = [], 0
        rest.append(last)
        size += len(last)
        if size > MAX_EVENT_BYTES:
            raise EventTooLarge(f"a line of over {MAX_EVENT_BYTES} bytes")
