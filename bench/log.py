"""The event log: appended to in batches as the relay makes them, relayed from a journal file, and bare inserts."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

from bench.figures import Figure
from bench.installation import BenchFailed, Up

EVENTS = 250_000
BATCH = 250
RELAYED = 50_000
BARE = 50_000
TEXT = "The tests fail in core.py: the counter splits at blanks only, so punctuation is counted as words. "
INSERT = 'INSERT INTO bench_event (stream_id, seq, type, data, execution, "offset") VALUES (%s, %s, %s, %s, %s, %s)'


def measure(home: Path, up: Up) -> list[Figure]:
    """Events a second in three ways, and whether a long run slows down."""
    tenths = _append_all()
    bare = _insert_bare()
    relayed = _relay_all(home)
    whole = EVENTS / sum(tenths)
    name = f"bare inserts of {BATCH}"
    tenth = EVENTS / len(tenths)
    return [
        Figure("events appended", whole, "/s", at_least=5000, baseline=bare, baseline_name=name),
        Figure("events relayed from a journal", relayed, "/s", at_least=5000, baseline=bare, baseline_name=name),
        Figure(f"last tenth of {EVENTS:,} events", tenths[-1], "s", at_most_ratio=1.25, baseline=tenths[0],
               baseline_name=f"the first tenth ({tenth / tenths[0]:,.0f} /s)"),
    ]  # fmt: skip


def _append_all() -> list[float]:
    """Seconds that each tenth of the events took."""
    from django.db import transaction

    from djinn.events.log import NewEvent, append, open_stream

    open_stream("bench-append")
    seconds = []
    numbers = iter(range(1, EVENTS + 1))
    for _ in range(10):
        started = time.monotonic()
        for _ in range(EVENTS // 10 // BATCH):
            batch = [
                NewEvent("text", _data(n), execution=10**9, offset=n)
                for _, n in zip(range(BATCH), numbers, strict=False)
            ]
            with transaction.atomic():
                append("bench-append", batch)
        seconds.append(time.monotonic() - started)
    return seconds


def _insert_bare() -> float:
    """Rows a second into a twin of the log's table, each batch one statement after another in one transaction."""
    from django.db import connection, transaction

    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE bench_event (LIKE events_event INCLUDING ALL)")
        started = time.monotonic()
        for first in range(0, BARE, BATCH):
            rows = [(1, n, "text", json.dumps(_data(n)), 10**9, n) for n in range(first, first + BATCH)]
            with transaction.atomic():
                cursor.executemany(INSERT, rows)
        seconds = time.monotonic() - started
        cursor.execute("DROP TABLE bench_event")
    return BARE / seconds


def _relay_all(home: Path) -> float:
    """Records a second through the whole relay: file, checks, scrubbing, lease, log."""
    from django.conf import settings

    from djinn.events.log import last_seq, open_stream
    from djinn.executions import lease as leases
    from djinn.executions.places import execution_directory
    from djinn.executions.relay import Relay
    from djinn.executions.services import create_execution
    from runtime_image.djinn_runtime.protocol import JOURNAL_NAME

    open_stream("bench-relay")
    tags = {"step_run": 1, "step": "FIX", "visit": 1, "attempt": 1}
    execution = create_execution(
        stream="bench-relay", tags=tags, image="none", timeout_seconds=600, host=settings.HOST_NAME
    )
    directory = execution_directory(execution)
    directory.mkdir()
    (directory / JOURNAL_NAME).write_bytes(b"".join(_records()))
    lease = leases.claim(execution.pk, owner="bench", host=settings.HOST_NAME)
    if lease is None:
        raise BenchFailed("the lease of a fresh execution was not to be had")
    started = time.monotonic()
    with leases.keeper.holding(lease):
        relay = Relay(execution, lease)
        while relay.ship():
            pass
        seconds = time.monotonic() - started
        lease.write(status="lost", reason="lost", ended_at=leases.DatabaseClock())
    if last_seq("bench-relay") != RELAYED:
        raise BenchFailed(f"{RELAYED} records became {last_seq('bench-relay')} events")
    return RELAYED / seconds


def _records() -> Iterator[bytes]:
    from runtime_image.djinn_runtime.protocol import Record, encode_record

    for n in range(1, RELAYED + 1):
        yield encode_record(Record(n, 1_732_252_800_000 + n, "text", _data(n)))


def _data(number: int) -> dict[str, object]:
    return {"text": f"{number} {TEXT}"}
