"""Reading an execution's journal: hostile bytes in, numbered records and marked garbage out.

The reader keeps no state of its own: byte offset, last number and "has finished" come in and go out, so that any worker
can go on where another one stopped. What a read gives does not depend on how the file was cut into reads.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from djinn.runner import beneath
from djinn.runner.base import RunnerError
from runtime_image.djinn_runtime.protocol import (
    MAX_JOURNAL_BYTES,
    MAX_RECORD_BYTES,
    ProtocolError,
    Record,
    clean,
    decode_record,
)

GARBAGE_TEXT_BYTES = 2048
MAX_BATCH_ENTRIES = 2000
SIZE_TOLERANCE_BYTES = 1024 * 1024


class JournalRefused(RunnerError):
    """The journal is not the append-only regular file that it must be; the execution cannot be trusted any more."""

    permanent = True
    reason = "rejected"


@dataclass(frozen=True)
class Entry:
    """One line, or one piece of a line that is too long: bytes `offset` to `end` of the journal, newline included.

    Garbage is shown as an `output` record of the stream `journal` with number 0.
    """

    offset: int
    end: int
    record: Record
    is_garbage: bool


@dataclass(frozen=True)
class Batch:
    """What one read gave, and where the next one starts.

    `forged` says what of it the runtime cannot have written, as far as that is certain; empty when there is nothing.
    """

    entries: tuple[Entry, ...]
    offset: int
    count: int
    is_finished: bool = False
    forged: str = ""


def read_journal(
    path: Path,
    *,
    offset: int,
    count: int,
    final: bool = False,
    max_bytes: int = 262_144,
    is_finished: bool = False,
) -> Batch:
    """The whole lines from byte `offset` on; `count` is the number of the last good record before it.

    `final` also takes a last line without newline. Behind a `finished` record everything is garbage; who reads on hands
    `is_finished` of the last batch back. Raises `JournalRefused`.
    """
    start = Batch(entries=(), offset=offset, count=count, is_finished=is_finished)
    try:
        descriptor = beneath.open_file(path.parent, path.name)
    except FileNotFoundError:
        if offset:
            raise JournalRefused(f"the journal vanished behind byte {offset}") from None
        return start
    except beneath.NotRegular as exc:
        raise JournalRefused("the journal is not a regular file") from exc
    except OSError as exc:
        raise JournalRefused(f"the journal cannot be opened: {exc.strerror}") from exc
    try:
        size = _checked_size(descriptor, offset)
        wanted = max(max_bytes, MAX_RECORD_BYTES + 1)
        is_inside_line = offset > 0 and os.pread(descriptor, 1, offset - 1) != b"\n"
        chunk = os.pread(descriptor, wanted, offset)
    finally:
        os.close(descriptor)
    is_last = final and offset + len(chunk) >= size
    return _collect(start, _pieces(chunk, is_inside_line=is_inside_line, is_last=is_last))


def _checked_size(descriptor: int, offset: int) -> int:
    status = os.fstat(descriptor)
    if status.st_size < offset:
        raise JournalRefused(f"the journal shrank to {status.st_size} bytes, {offset} were read before")
    if status.st_size > MAX_JOURNAL_BYTES + SIZE_TOLERANCE_BYTES:
        raise JournalRefused(f"the journal has {status.st_size} bytes, at most {MAX_JOURNAL_BYTES} are allowed")
    return status.st_size


def _pieces(chunk: bytes, *, is_inside_line: bool, is_last: bool) -> Iterator[tuple[bytes, bool]]:
    """The chunk cut into lines with their newlines, and whether each is a whole line that may be a record."""
    position = 0
    while position < len(chunk):
        newline = chunk.find(b"\n", position, position + MAX_RECORD_BYTES + 1)
        if newline >= 0:
            end, has_end = newline + 1, True
        elif len(chunk) - position > MAX_RECORD_BYTES:
            end, has_end = position + MAX_RECORD_BYTES, False
        elif is_last:
            end, has_end = len(chunk), True
        else:
            return
        yield chunk[position:end], has_end and not is_inside_line
        is_inside_line = not has_end
        position = end


def _collect(start: Batch, pieces: Iterator[tuple[bytes, bool]]) -> Batch:
    entries: list[Entry] = []
    batch = start
    for piece, is_whole in pieces:
        record, why, is_forged = _judge(piece, is_whole=is_whole, batch=batch)
        if is_forged and not batch.forged:
            batch = replace(batch, forged=why)
        end = batch.offset + len(piece)
        if record is None:
            entries.append(Entry(batch.offset, end, _garbage(piece, why), is_garbage=True))
            batch = replace(batch, offset=end)
        else:
            entries.append(Entry(batch.offset, end, record, is_garbage=False))
            batch = replace(batch, offset=end, count=record.n, is_finished=record.type == "finished")
        if len(entries) >= MAX_BATCH_ENTRIES:
            break
    return replace(batch, entries=tuple(entries))


def _judge(piece: bytes, *, is_whole: bool, batch: Batch) -> tuple[Record | None, str, bool]:
    """The record, or why it is none, and whether somebody else than the runtime must have written it.

    The runtime writes nothing behind `finished` and no number twice, whatever disk and memory do to it. Anything else
    that is wrong may also be what a full disk or a power cut has left.
    """
    if batch.is_finished:
        return None, "something was written behind its end", True
    if not is_whole:
        return None, f"part of a line longer than {MAX_RECORD_BYTES} bytes", False
    try:
        record = decode_record(piece.removesuffix(b"\n"))
    except ProtocolError as exc:
        return None, str(exc), False
    if record.n <= batch.count:
        return None, f"the number {record.n} was used twice", True
    if record.n != batch.count + 1:
        return None, f"record {record.n} where {batch.count + 1} was due", False
    return record, "", False


def _garbage(piece: bytes, why: str) -> Record:
    text = piece[:GARBAGE_TEXT_BYTES].decode("utf-8", "replace").removesuffix("\n")
    data = {"stream": "journal", "text": clean(text), "note": clean(why[:200])}
    return Record(n=0, t=0, type="output", data=data)
