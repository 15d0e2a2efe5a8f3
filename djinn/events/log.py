"""Appending to streams and reading them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from django.db import connection, transaction
from django.db.models.functions import Coalesce

from djinn.core.errors import AppError
from djinn.events import hints
from djinn.events.models import Event, Stream

JSON = Any
PAGE = 500
HAPPENED = Coalesce("happened_at", "at")
LOGGED = ("seq", "type", "data", HAPPENED, "execution")
APPEND = """
WITH stream AS (
    UPDATE events_stream SET last_seq = last_seq + %(count)s WHERE name = %(stream)s RETURNING id, last_seq
), appended AS (
    INSERT INTO events_event (stream_id, seq, type, data, execution, "offset", happened_at)
    SELECT stream.id, stream.last_seq - %(count)s + event.number,
           event.type, event.data::jsonb, event.execution, event.position,
           CASE WHEN event.moment IS NOT NULL THEN least(event.moment, now()) END
      FROM stream, unnest(%(types)s::text[], %(data)s::text[], %(executions)s::bigint[], %(offsets)s::bigint[],
                          %(moments)s::timestamptz[])
                   WITH ORDINALITY AS event(type, data, execution, position, moment, number)
)
SELECT last_seq FROM stream
"""
"""One statement: 3 to 5 times less work in Python an event than the ORM's bulk insert."""


NEWEST_WITH = """
SELECT DISTINCT ON (event.execution)
       event.seq, event.type, event.data::text, coalesce(event.happened_at, event.at), event.execution
  FROM unnest(%(executions)s::bigint[]) AS source(id)
 CROSS JOIN LATERAL (
       SELECT * FROM events_event WHERE execution = source.id ORDER BY "offset" DESC LIMIT %(look_back)s
 ) AS event
 WHERE event.type = %(kind)s AND event.data ? %(key)s
 ORDER BY event.execution, event."offset" DESC
"""
"""The ORM has no LATERAL; without one it would read every event of the executions."""


class NoSuchStream(AppError):
    """A stream was appended to before it was opened."""


@dataclass(frozen=True)
class NewEvent:
    """An event to append. `execution` and `offset` are set together, for what comes from a journal.

    `happened_at` is for what happened before it is appended; a time to come becomes now.
    """

    type: str
    data: Mapping[str, JSON] = field(default_factory=dict)
    execution: int | None = None
    offset: int | None = None
    happened_at: datetime | None = None


@dataclass(frozen=True)
class LoggedEvent:
    """An event as it stands in the log. `at` is when it happened."""

    seq: int
    type: str
    data: Mapping[str, JSON]
    at: datetime
    execution: int | None


def open_stream(name: str) -> None:
    """Make the stream unless it exists."""
    Stream.objects.get_or_create(name=name)


def append(stream: str, events: Sequence[NewEvent]) -> int:
    """Append the events in their order and return the last one's sequence number.

    Must run in a transaction. The stream's row stays locked until that commits, which is what makes the order of
    commits the order of sequence numbers: a reader that has seen n will never find something below n later. Viewers get
    a hint once it has committed. Raises `NoSuchStream`.
    """
    if not connection.in_atomic_block:
        raise AppError("events are appended in the transaction of what they tell")
    parameters: dict[str, Any] = {
        "stream": stream,
        "count": len(events),
        "types": [event.type for event in events],
        "data": [json.dumps(dict(event.data), ensure_ascii=False) for event in events],
        "executions": [event.execution for event in events],
        "offsets": [event.offset for event in events],
        "moments": [event.happened_at for event in events],
    }
    with connection.cursor() as cursor:
        cursor.execute(APPEND, parameters)
        row = cursor.fetchone()
    if row is None:
        raise NoSuchStream(stream)
    transaction.on_commit(lambda: hints.send(stream), robust=True)
    return int(row[0])


def read_after(stream: str, seq: int, *, limit: int = PAGE) -> list[LoggedEvent]:
    """The next events behind `seq`, oldest first, at most `limit`. A stream that does not exist is empty."""
    rows = Event.objects.filter(stream__name=stream, seq__gt=seq).order_by("seq")[:limit]
    return _logged(rows.values_list(*LOGGED))


def read_before(stream: str, seq: int, *, limit: int = PAGE) -> list[LoggedEvent]:
    """The last events up to and including `seq`, oldest first, at most `limit`."""
    rows = Event.objects.filter(stream__name=stream, seq__lte=seq).order_by("-seq")[:limit]
    return _logged(rows.values_list(*LOGGED))[::-1]


def last_time_of(execution: int) -> datetime | None:
    """When the last event of the execution's journal happened; None before the first one."""
    return Event.objects.filter(execution=execution).order_by("-offset").values_list(HAPPENED, flat=True).first()


def newest_with(executions: Sequence[int], kind: str, key: str, *, look_back: int) -> list[LoggedEvent]:
    """For each execution the newest of its last `look_back` events that is of the kind and whose data has the key."""
    with connection.cursor() as cursor:
        cursor.execute(NEWEST_WITH, {"executions": list(executions), "kind": kind, "key": key, "look_back": look_back})
        return [LoggedEvent(seq, name, json.loads(data), at, number) for seq, name, data, at, number in cursor]


def last_seq(stream: str) -> int:
    """The newest event's sequence number, 0 when there is none."""
    return Stream.objects.filter(name=stream).values_list("last_seq", flat=True).first() or 0


def last_seqs(streams: Sequence[str]) -> dict[str, int]:
    """The newest sequence number of each of the streams that exist."""
    return dict(Stream.objects.filter(name__in=streams).values_list("name", "last_seq"))


def _logged(rows: Any) -> list[LoggedEvent]:
    return [LoggedEvent(*row) for row in rows]
