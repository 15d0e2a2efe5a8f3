"""From hostile journals to the log: each record once, whoever ships it, and nothing that it should not hold."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from djinn.events.log import LoggedEvent, read_after
from djinn.executions.lease import Fenced
from djinn.executions.models import Execution
from djinn.executions.relay import HIDDEN, MOST_GARBAGE, Relay
from djinn.executions.tokens import token_of
from djinn.runner.journal import JournalRefused
from runtime_image.djinn_runtime.protocol import MAX_RECORD_BYTES, Record, encode_record
from tests.make import claimed, expire, journal, make_execution, succeeded

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("home")]


def relay_of(execution: Execution) -> Relay:
    """A relay of a worker that has just claimed the execution."""
    lease = claimed(execution)
    execution.refresh_from_db()
    return Relay(execution, lease)


def shipped(*parts: bytes | tuple[str, dict[str, Any]]) -> list[LoggedEvent]:
    """What stands in the log once a journal of these parts was shipped to its end."""
    execution = make_execution()
    journal(execution, *parts)
    relay_of(execution).ship_all()
    return read_after("test", 0)


def line(number: int, kind: str, **data: Any) -> bytes:
    return encode_record(Record(number, 0, kind, data))


def is_garbage(event: LoggedEvent) -> bool:
    return event.type == "output" and event.data["stream"] == "journal"


def test_records_become_events_in_order_with_their_tags_and_places() -> None:
    events = shipped(("ready", {}), ("text", {"text": "hello"}), ("finished", succeeded()))
    assert [(event.type, event.data.get("text"), event.data["step"]) for event in events] == [
        ("ready", None, "WORK"),
        ("text", "hello", "WORK"),
        ("finished", None, "WORK"),
    ]


def test_a_record_cannot_claim_to_be_of_another_step() -> None:
    (event,) = shipped(("text", {"text": "x", "step": "OTHER"}))
    assert event.data["step"] == "WORK"


def test_ready_makes_the_execution_running() -> None:
    execution = make_execution()
    journal(execution, ("ready", {}))
    relay_of(execution).ship_all()
    execution.refresh_from_db()
    assert execution.status == "running"
    assert execution.ready_at is not None


def test_finished_is_kept_as_the_outcome() -> None:
    execution = make_execution()
    journal(execution, ("ready", {}), ("finished", succeeded(A="1")))
    relay_of(execution).ship_all()
    execution.refresh_from_db()
    assert execution.outcome["outputs"] == {"A": "1"}


@pytest.mark.parametrize(
    "bad",
    [
        b"garbage\n",
        b"\n",
        b"\xff\xfe\x00\n",
        b"[]\n",
        b'{"n": 2, "t": 0, "type": "text", "data": {}, "more": 1}\n',
        b'{"n": 2, "t": 0, "type": "step_finished", "data": {}}\n',
        b'{"n": 2, "t": 0, "type": "text", "data": NaN}\n',
        b'{"n": true, "t": 0, "type": "text", "data": {}}\n',
        line(1, "text", text="the first number again"),
        line(3, "text", text="a number left out"),
        b"[" * 50_000 + b"\n",
    ],
)
def test_what_is_no_record_is_shown_as_garbage_and_what_follows_is_read(bad: bytes) -> None:
    first, middle, last = shipped(("ready", {}), bad, line(2, "text", text="after"))
    assert not is_garbage(first)
    assert is_garbage(middle)
    assert (last.type, last.data["text"]) == ("text", "after")


def test_a_forged_finished_with_a_wrong_number_decides_nothing() -> None:
    execution = make_execution()
    journal(execution, ("ready", {}), line(7, "finished", **succeeded()))
    relay_of(execution).ship_all()
    execution.refresh_from_db()
    assert execution.outcome is None


def test_what_is_written_behind_finished_is_garbage_and_the_first_outcome_stays() -> None:
    execution = make_execution()
    journal(execution, ("finished", succeeded(A="first")), line(2, "finished", **succeeded(A="second")), b"more\n")
    relay_of(execution).ship_all()
    execution.refresh_from_db()
    assert execution.outcome["outputs"] == {"A": "first"}
    assert [is_garbage(event) for event in read_after("test", 0)] == [False, True, True]


@pytest.mark.parametrize(
    ("parts", "forged"),
    [
        ((("ready", {}), line(1, "text", text="x")), "the number 1 was used twice"),
        ((("ready", {}), ("text", {"text": "x"}), line(1, "finished", **succeeded())), "the number 1 was used twice"),
        ((("finished", succeeded()), line(2, "log")), "something was written behind its end"),
        ((("finished", succeeded()), b"x"), "something was written behind its end"),
        ((("finished", succeeded()), b"\n"), "something was written behind its end"),
        # what a full disk or a power cut may leave is no forgery
        ((("ready", {}), line(5, "text", text="x")), ""),
        ((("ready", {}), b'{"n": 2, "t": 0, "ty', b"\n", line(2, "finished", **succeeded())), ""),
        ((("ready", {}), bytes(100), b"\n"), ""),
        ((("ready", {}), line(2, "finished", **succeeded())[:-1]), ""),
    ],
)
@pytest.mark.parametrize("is_at_once", [True, False])
def test_what_the_runtime_cannot_have_written_is_noted_in_the_row(parts: Any, forged: str, is_at_once: bool) -> None:
    """Wherever the journal is cut into batches, and whoever reads the next one."""
    execution = make_execution()
    for number, part in enumerate(parts, 1):
        journal(execution, part, start=number)
        if not is_at_once and number < len(parts):
            relay_of(Execution.objects.get(pk=execution.pk)).ship()
            expire(execution)
    relay_of(Execution.objects.get(pk=execution.pk)).ship_all()
    execution.refresh_from_db()
    assert execution.forged == forged


def test_a_line_of_ten_megabytes_is_garbage_in_pieces_and_what_follows_is_read() -> None:
    events = shipped(b"x" * 10_000_000 + b"\n", line(1, "text", text="after"))
    assert all(is_garbage(event) for event in events[:-1])
    assert len(events) == 10_000_000 // MAX_RECORD_BYTES + 2
    assert events[-1].data["text"] == "after"


def test_nul_and_lone_surrogates_reach_the_log_as_replacement_characters() -> None:
    (event,) = shipped(b'{"n": 1, "t": 0, "type": "text", "data": {"text": "a\\u0000b\\ud800c"}}\n')
    assert event.data["text"] in {"a\ufffdb\ufffdc", "a\ufffdb?c"}


def test_the_token_is_hidden_wherever_an_agent_prints_it() -> None:
    execution = make_execution()
    token = token_of(execution.pk)
    journal(
        execution,
        ("output", {"text": f"env: {token}!"}),
        ("tool_call", {"arguments": {"list": [{token: token}]}}),
        ("finished", succeeded(summary=token, A=token)),
    )
    relay_of(execution).ship_all()
    execution.refresh_from_db()
    assert token not in json.dumps([dict(event.data) for event in read_after("test", 0)])
    assert execution.outcome["outputs"] == {"A": HIDDEN}


def test_a_last_line_without_its_newline_is_read_only_at_the_end() -> None:
    execution = make_execution()
    journal(execution, line(1, "text", text="whole")[:-1])
    relay = relay_of(execution)
    assert not relay.ship()
    relay.ship_all()
    assert [event.data["text"] for event in read_after("test", 0)] == ["whole"]


def test_a_journal_with_too_much_garbage_is_refused() -> None:
    execution = make_execution()
    journal(execution, b"\n" * (MOST_GARBAGE + 1))
    with pytest.raises(JournalRefused, match="no records"):
        relay_of(execution).ship_all()


def test_a_worker_that_goes_on_ships_the_rest_and_nothing_twice() -> None:
    execution = make_execution()
    records = [("text", {"text": str(number)}) for number in range(20)]
    journal(execution, *records[:12])
    relay_of(execution).ship_all()
    expire(execution)
    journal(execution, *records[12:], start=13)
    relay_of(Execution.objects.get(pk=execution.pk)).ship_all()
    assert [event.data["text"] for event in read_after("test", 0)] == [str(number) for number in range(20)]


def test_a_worker_that_lost_its_lease_ships_nothing_more() -> None:
    execution = make_execution()
    journal(execution, ("text", {"text": "0"}))
    stale = relay_of(execution)
    expire(execution)
    current = relay_of(Execution.objects.get(pk=execution.pk))
    current.ship_all()
    journal(execution, ("text", {"text": "1"}), start=2)
    with pytest.raises(Fenced):
        stale.ship()
    current.ship_all()
    assert [event.data["text"] for event in read_after("test", 0)] == ["0", "1"]


def test_a_batch_whose_commit_failed_is_shipped_again_as_a_whole() -> None:
    execution = make_execution()
    journal(execution, ("ready", {}), ("text", {"text": "x"}))
    relay = relay_of(execution)
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE events_event ADD CONSTRAINT no_text CHECK (type <> 'text')")
    try:
        with pytest.raises(Exception, match="no_text"):
            relay.ship()
        assert read_after("test", 0) == []
        assert Execution.objects.values_list("journal_offset", "status").get() == (0, "starting")
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE events_event DROP CONSTRAINT no_text")
    relay.ship_all()
    assert [(event.seq, event.type) for event in read_after("test", 0)] == [(1, "ready"), (2, "text")]


def test_places_in_the_log_are_those_in_the_journal() -> None:
    execution = make_execution()
    path = journal(execution, *(("text", {"text": "x" * number}) for number in range(50)))
    relay_of(execution).ship_all()
    offsets, position = [], 0
    for record in path.read_bytes().splitlines(keepends=True):
        offsets.append(position)
        position += len(record)
    with connection.cursor() as cursor:
        cursor.execute('SELECT "offset" FROM events_event ORDER BY seq')
        assert [row[0] for row in cursor.fetchall()] == offsets
    execution.refresh_from_db()
    assert execution.journal_offset == position


# --- When it happened -------------------------------------------------------------------------------------------------
def timed(number: int, moment: datetime, kind: str = "text") -> bytes:
    return encode_record(Record(number, int(moment.timestamp() * 1000), kind, {"text": "x"}))


def begun(*, seconds_ago: float = 600) -> Execution:
    """An execution that was made a while ago."""
    execution = make_execution()
    Execution.objects.filter(pk=execution.pk).update(created_at=timezone.now() - timedelta(seconds=seconds_ago))
    execution.refresh_from_db()
    return execution


def times_of(execution: Execution) -> list[float]:
    """When the events happened, in seconds since the execution was made."""
    return [(event.at - execution.created_at).total_seconds() for event in read_after("test", 0)]


def test_an_event_has_the_time_of_its_record_and_not_of_the_batch() -> None:
    execution = begun()
    moments = [execution.created_at + timedelta(seconds=seconds) for seconds in (1, 2.5, 60)]
    journal(execution, *(timed(number, moment) for number, moment in enumerate(moments, 1)))
    relay_of(execution).ship_all()
    assert times_of(execution) == pytest.approx([1, 2.5, 60], abs=0.01)


@pytest.mark.parametrize("milliseconds", [0, 2**53 - 1], ids=["1970", "the year 287396"])
def test_a_time_before_the_start_or_to_come_is_not_believed(milliseconds: int) -> None:
    execution = begun()
    before = timezone.now()
    journal(execution, encode_record(Record(1, milliseconds, "text", {"text": "x"})))
    relay_of(execution).ship_all()
    (event,) = read_after("test", 0)
    if milliseconds:
        assert before <= event.at <= timezone.now()
    else:
        assert event.at == execution.created_at


def test_times_of_an_execution_never_go_back_whoever_ships_them() -> None:
    execution = begun()
    start = execution.created_at
    seconds = [30, 10, 40]
    journal(execution, *(timed(number, start + timedelta(seconds=each)) for number, each in enumerate(seconds, 1)))
    relay_of(execution).ship_all()
    expire(execution)
    later = [20, 50]
    journal(execution, *(timed(number, start + timedelta(seconds=each)) for number, each in enumerate(later, 4)))
    relay_of(execution).ship_all()
    assert times_of(execution) == pytest.approx([30, 30, 40, 40, 50], abs=0.01)


def test_a_time_to_come_does_not_spoil_those_behind_it() -> None:
    execution = begun()
    start = execution.created_at
    journal(execution, timed(1, start + timedelta(days=9000)), timed(2, start + timedelta(seconds=5)))
    relay_of(execution).ship_all()
    first, second = times_of(execution)
    assert first == second == pytest.approx(600, abs=60)


def test_garbage_has_the_time_of_what_came_before_it() -> None:
    execution = begun()
    journal(execution, timed(1, execution.created_at + timedelta(seconds=7)), b"garbage\n")
    relay_of(execution).ship_all()
    assert times_of(execution) == pytest.approx([7, 7], abs=0.01)
