"""The event log: order, gaps, cursors, and what it refuses."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.db import IntegrityError, connection, transaction

from djinn.core.errors import AppError
from djinn.events.log import NewEvent, NoSuchStream, append, last_seq, last_seqs, open_stream, read_after, read_before
from djinn.events.models import Event

WRITERS, BATCHES = 8, 25


def _fill(stream: str, count: int) -> None:
    open_stream(stream)
    with transaction.atomic():
        append(stream, [NewEvent("note", {"n": n}) for n in range(1, count + 1)])


def _write(writer: int, seen: list[int]) -> None:
    try:
        for number in range(BATCHES):
            with transaction.atomic():
                seen.append(append("shared", [NewEvent("note", {"w": writer, "n": 2 * number + n}) for n in (0, 1)]))
    finally:
        connection.close()


@pytest.mark.django_db(transaction=True)
def test_many_writers_make_one_series_without_gaps() -> None:
    open_stream("shared")
    seen: list[int] = []
    with ThreadPoolExecutor(WRITERS) as pool:
        for done in [pool.submit(_write, writer, seen) for writer in range(WRITERS)]:
            done.result()
    events = read_after("shared", 0, limit=10_000)
    assert [event.seq for event in events] == list(range(1, WRITERS * BATCHES * 2 + 1))
    assert sorted(seen) == list(range(2, WRITERS * BATCHES * 2 + 1, 2))
    for writer in range(WRITERS):
        assert [event.data["n"] for event in events if event.data["w"] == writer] == list(range(2 * BATCHES))


@pytest.mark.django_db(transaction=True)
def test_a_reader_never_sees_an_event_before_the_ones_below_it() -> None:
    open_stream("shared")
    is_done, problems = threading.Event(), []

    def read() -> None:
        after = 0
        try:
            while not is_done.is_set():
                for event in read_after("shared", after):
                    if event.seq != after + 1:
                        problems.append((after, event.seq))
                    after = event.seq
        finally:
            connection.close()

    reader = threading.Thread(target=read)
    reader.start()
    with ThreadPoolExecutor(WRITERS) as pool:
        for done in [pool.submit(_write, writer, []) for writer in range(WRITERS)]:
            done.result()
    is_done.set()
    reader.join()
    assert problems == []


@pytest.mark.django_db(transaction=True)
def test_a_transaction_that_is_rolled_back_leaves_no_gap() -> None:
    _fill("s", 1)
    with transaction.atomic():
        append("s", [NewEvent("lost")])
        transaction.set_rollback(True)
    with transaction.atomic():
        append("s", [NewEvent("kept")])
    assert [(event.seq, event.type) for event in read_after("s", 0)] == [(1, "note"), (2, "kept")]


@pytest.mark.django_db(transaction=True)
def test_appending_outside_of_a_transaction_is_refused() -> None:
    open_stream("s")
    with pytest.raises(AppError, match="transaction"):
        append("s", [NewEvent("note")])
    assert last_seq("s") == 0


@pytest.mark.django_db
def test_appending_to_a_stream_that_nobody_opened_is_refused() -> None:
    with pytest.raises(NoSuchStream):
        append("s", [NewEvent("note")])


@pytest.mark.django_db
@pytest.mark.parametrize(
    "columns", ["seq = 9", "type = 'x'", "data = '{}'", "at = now()", 'execution = 1, "offset" = 1']
)
def test_an_event_is_never_changed(columns: str) -> None:
    _fill("s", 1)
    with pytest.raises(IntegrityError, match="never changed"), connection.cursor() as cursor:
        cursor.execute(f"UPDATE events_event SET {columns}")


@pytest.mark.django_db
@pytest.mark.parametrize(("execution", "offset"), [(1, None), (None, 1)])
def test_half_a_place_in_a_journal_is_refused(execution: int | None, offset: int | None) -> None:
    open_stream("s")
    with pytest.raises(IntegrityError, match="event_has_whole_source"):
        append("s", [NewEvent("note", execution=execution, offset=offset)])


@pytest.mark.django_db
def test_a_record_of_a_journal_is_logged_once() -> None:
    open_stream("s")
    append("s", [NewEvent("note", execution=1, offset=0), NewEvent("note", execution=2, offset=0)])
    with pytest.raises(IntegrityError, match="event_journal_record_once"):
        append("s", [NewEvent("note", execution=1, offset=0)])


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("after", "limit", "expected"),
    [(0, 3, [1, 2, 3]), (3, 500, [4, 5, 6]), (6, 500, []), (99, 500, []), (5, 1, [6]), (0, 0, [])],
)
def test_reading_after_a_cursor_gives_the_next_ones(after: int, limit: int, expected: list[int]) -> None:
    _fill("s", 6)
    _fill("other", 2)
    assert [event.seq for event in read_after("s", after, limit=limit)] == expected


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("seq", "limit", "expected"), [(6, 2, [5, 6]), (3, 500, [1, 2, 3]), (0, 500, []), (99, 1, [6]), (1, 9, [1])]
)
def test_reading_up_to_a_cursor_gives_the_last_ones_in_order(seq: int, limit: int, expected: list[int]) -> None:
    _fill("s", 6)
    _fill("other", 2)
    assert [event.seq for event in read_before("s", seq, limit=limit)] == expected


@pytest.mark.django_db
def test_a_stream_that_does_not_exist_is_empty() -> None:
    _fill("s", 2)
    assert (read_after("none", 0), read_before("none", 9), last_seq("none")) == ([], [], 0)
    assert last_seqs(["s", "none"]) == {"s": 2}


@pytest.mark.django_db
def test_opening_a_stream_again_keeps_what_it_holds() -> None:
    _fill("s", 2)
    open_stream("s")
    assert last_seq("s") == Event.objects.filter(stream__name="s").count() == 2
