"""The journal is hostile input: what is read from it, and what is refused."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from djinn.runner.journal import GARBAGE_TEXT_BYTES, MAX_BATCH_ENTRIES, Batch, Entry, JournalRefused, read_journal
from runtime_image.djinn_runtime.protocol import MAX_JOURNAL_BYTES, MAX_RECORD_BYTES, Record, encode_record


def line(n: int, kind: str = "log", **data: Any) -> bytes:
    return encode_record(Record(n, 1, kind, data))


@pytest.fixture
def journal(tmp_path: Path) -> Path:
    return tmp_path / "journal.ndjson"


def read(path: Path, content: bytes, **options: Any) -> Batch:
    path.write_bytes(content)
    return read_journal(path, **{"offset": 0, "count": 0, **options})


def read_to_end(path: Path) -> list[Entry]:
    batch, entries = Batch((), 0, 0), []
    while True:
        batch = read_journal(
            path, offset=batch.offset, count=batch.count, final=True, max_bytes=1, is_finished=batch.is_finished
        )
        if not batch.entries:
            return entries
        entries += batch.entries


def test_a_missing_journal_is_empty(journal: Path) -> None:
    assert read_journal(journal, offset=0, count=0) == Batch((), 0, 0)


def test_whole_lines_become_records(journal: Path) -> None:
    batch = read(journal, line(1, "ready") + line(2, "text", delta="hi"))
    assert [(entry.record.n, entry.record.type) for entry in batch.entries] == [(1, "ready"), (2, "text")]
    assert (batch.count, batch.offset) == (2, journal.stat().st_size)


def test_a_line_without_its_end_waits(journal: Path) -> None:
    first = line(1)
    batch = read(journal, first + line(2)[:-1])
    assert (batch.count, batch.offset) == (1, len(first))


def test_the_next_read_goes_on_where_the_last_one_stopped(journal: Path) -> None:
    first = read(journal, line(1) + line(2)[:7])
    journal.write_bytes(line(1) + line(2))
    second = read_journal(journal, offset=first.offset, count=first.count)
    assert [entry.record.n for entry in second.entries] == [2]


def test_a_final_read_takes_a_whole_record_without_newline(journal: Path) -> None:
    assert read(journal, line(1)[:-1], final=True).count == 1


def test_a_final_read_takes_half_a_record_as_garbage(journal: Path) -> None:
    batch = read(journal, line(1)[:-4], final=True)
    assert [entry.is_garbage for entry in batch.entries] == [True]


BAD_LINES = {
    "not JSON": b"hello",
    "no object": b"[1]",
    "bad UTF-8": b'{"n": 1, "t": 1, "type": "log", "data": {"x": "\xff"}}',
    "an unknown type": b'{"n": 1, "t": 1, "type": "root", "data": {}}',
    "a number too far": line(2)[:-1],
    "a number as text": b'{"n": "1", "t": 1, "type": "log", "data": {}}',
    "one key too many": b'{"n": 1, "t": 1, "type": "log", "data": {}, "x": 1}',
    "not a number": b'{"n": 1, "t": 1, "type": "log", "data": {"x": NaN}}',
    "deep nesting": b'{"n": 1, "t": 1, "type": "log", "data": ' + b"[" * 30_000 + b"]" * 30_000 + b"}",
    "an empty line": b"",
}


@pytest.mark.parametrize("bad", BAD_LINES.values(), ids=BAD_LINES.keys())
def test_a_bad_line_becomes_a_marked_output_record(journal: Path, bad: bytes) -> None:
    batch = read(journal, bad + b"\n" + line(1))
    garbage, good = batch.entries
    assert (garbage.is_garbage, garbage.record.type, garbage.record.data["stream"]) == (True, "output", "journal")
    assert (good.is_garbage, batch.count) == (False, 1)


def test_a_record_that_comes_twice_is_garbage_the_second_time(journal: Path) -> None:
    assert [entry.is_garbage for entry in read(journal, line(1) * 2).entries] == [False, True]


def test_garbage_is_shown_cut_and_without_nul(journal: Path) -> None:
    text = read(journal, b"\x00" + b"x" * 5000 + b"\n").entries[0].record.data["text"]
    assert (len(text) <= GARBAGE_TEXT_BYTES, "\x00" in text) == (True, False)


def test_nothing_behind_finished_is_typed(journal: Path) -> None:
    batch = read(journal, line(1, "finished", status="succeeded") + line(2))
    assert ([entry.is_garbage for entry in batch.entries], batch.count) == ([False, True], 1)


def test_nothing_behind_finished_is_typed_by_a_later_read(journal: Path) -> None:
    first = read(journal, line(1, "finished", status="succeeded"))
    journal.write_bytes(journal.read_bytes() + line(2))
    later = read_journal(journal, offset=first.offset, count=first.count, is_finished=first.is_finished)
    assert [entry.is_garbage for entry in later.entries] == [True]


def test_a_line_of_ten_megabytes_is_consumed_in_bounded_pieces(journal: Path) -> None:
    journal.write_bytes(b"x" * 10_000_000 + b"\n" + line(1))
    *pieces, last = read_to_end(journal)
    assert max(entry.end - entry.offset for entry in pieces) <= MAX_RECORD_BYTES + 1
    assert (last.record.n, last.is_garbage, all(entry.is_garbage for entry in pieces)) == (1, False, True)


def test_the_tail_of_a_line_that_is_too_long_is_never_a_record(journal: Path) -> None:
    journal.write_bytes(b"x" * MAX_RECORD_BYTES + line(1))
    assert [entry.is_garbage for entry in read_to_end(journal)] == [True, True]


def test_a_batch_has_a_bounded_number_of_entries(journal: Path) -> None:
    batch = read(journal, b"\n" * (MAX_BATCH_ENTRIES + 5))
    assert (len(batch.entries), batch.offset) == (MAX_BATCH_ENTRIES, MAX_BATCH_ENTRIES)


def test_a_journal_that_shrank_is_refused(journal: Path) -> None:
    first = read(journal, line(1) + line(2))
    journal.write_bytes(line(1))
    with pytest.raises(JournalRefused, match="shrank"):
        read_journal(journal, offset=first.offset, count=first.count)


def test_a_journal_that_vanished_is_refused(journal: Path) -> None:
    with pytest.raises(JournalRefused, match="vanished"):
        read_journal(journal, offset=10, count=1)


def test_a_journal_that_is_too_large_is_refused(journal: Path) -> None:
    journal.touch()
    os.truncate(journal, 2 * MAX_JOURNAL_BYTES)
    with pytest.raises(JournalRefused, match="at most"):
        read_journal(journal, offset=0, count=0)


def make_link(path: Path) -> None:
    path.symlink_to("/etc/passwd")


def make_socket(path: Path) -> None:
    os.mknod(path, 0o140600)


@pytest.mark.parametrize("make", [make_link, os.mkfifo, os.mkdir, make_socket])
def test_a_journal_that_is_no_regular_file_is_refused(journal: Path, make: Any) -> None:
    make(journal)
    with pytest.raises(JournalRefused):
        read_journal(journal, offset=0, count=0)


def test_a_device_is_refused() -> None:
    with pytest.raises(JournalRefused, match="regular"):
        read_journal(Path("/dev/zero"), offset=0, count=0)


good_lines = st.integers(1, 5).map(line)
hostile_lines = st.one_of(
    good_lines,
    st.binary(max_size=40),
    st.integers(MAX_RECORD_BYTES - 2, 2 * MAX_RECORD_BYTES + 2).map(lambda size: b"x" * size),
    st.just(line(3, "finished")),
    st.just(json.dumps({"n": 1, "t": 1, "type": "log", "data": {}}).encode()),
)
contents = st.lists(st.tuples(hostile_lines, st.sampled_from([b"", b"\n"])), max_size=12).map(
    lambda parts: b"".join(body + end for body, end in parts)
)


@given(content=contents, cuts=st.lists(st.integers(0, 400_000), max_size=8), max_bytes=st.integers(1, 300_000))
@settings(max_examples=300, deadline=None)
def test_entries_do_not_depend_on_how_the_journal_grew(content: bytes, cuts: list[int], max_bytes: int) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "journal"
        batch, grown = Batch((), 0, 0), []
        for cut in [*sorted(cuts), len(content)]:
            path.write_bytes(content[:cut])
            batch = read_journal(
                path, offset=batch.offset, count=batch.count, max_bytes=max_bytes, is_finished=batch.is_finished
            )
            grown += batch.entries
        while batch.offset < len(content):
            batch = read_journal(
                path, offset=batch.offset, count=batch.count, final=True, is_finished=batch.is_finished
            )
            grown += batch.entries
        assert grown == read_to_end(path)
        assert [0, *(entry.end for entry in grown)] == [*(entry.offset for entry in grown), len(content)]
