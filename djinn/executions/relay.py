"""The relay: journal records become events, each exactly once, whoever ships them.

A batch of events, the new offset in the journal and what a `ready` or `finished` record means for the execution are
one transaction, under the lease's token. A worker that dies before the commit has shipped nothing of the batch; the
next one reads from the stored offset. The database refuses a second event for the same byte of the same journal.

An event has the time of its record, which only the container vouches for: never before the execution was made, before
the record above it, or to come.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from django.db import connection, transaction

from djinn.core.faults import fault
from djinn.events.log import NewEvent, append, last_time_of
from djinn.executions.lease import DatabaseClock, Lease
from djinn.executions.models import Execution
from djinn.executions.places import execution_directory
from djinn.executions.states import ExecutionStatus
from djinn.executions.tokens import token_of
from djinn.runner.journal import Batch, Entry, JournalRefused, read_journal
from runtime_image.djinn_runtime.protocol import JOURNAL_NAME

HIDDEN = "[hidden]"
MOST_GARBAGE = 2000
"""Lines that are no records, in one journal: a hostile one could hold millions of empty ones."""
LAST_MILLISECOND = 253_402_300_799_000
"""The end of the year 9999, the last that Python knows."""


class Relay:
    """Ships one execution's journal, from where the row says it is."""

    def __init__(self, execution: Execution, lease: Lease) -> None:
        self._execution = execution
        self._lease = lease
        self._path = execution_directory(execution) / JOURNAL_NAME
        self._token = token_of(execution.pk)
        self._moment = execution.created_at
        if execution.journal_offset:
            self._moment = last_time_of(execution.pk) or execution.created_at

    def ship(self, *, final: bool = False) -> bool:
        """Ship the next batch; whether there was one. `final` also takes a last line without its newline.

        Raises `Fenced`, `JournalRefused`, or a database error, after which the row is unchanged.
        """
        row = self._execution
        batch = read_journal(
            self._path,
            offset=row.journal_offset,
            count=row.journal_count,
            final=final,
            is_finished=row.outcome is not None,
        )
        if not batch.entries:
            return False
        columns = self._columns(batch)
        if columns["journal_garbage"] > MOST_GARBAGE:
            raise JournalRefused(f"the journal holds more than {MOST_GARBAGE} lines that are no records")
        events = [self._event(entry) for entry in batch.entries]
        if row.journal_offset == 0:
            fault("relay.before_first_batch")
        with transaction.atomic():
            self._lease.write(**columns)
            fault("relay.offset_written")
            append(row.stream, events)
            fault("relay.before_commit")
        fault("relay.after_commit")
        for name, value in columns.items():
            setattr(row, name, value)
        if "outcome" in columns:
            fault("relay.outcome_shipped")
        return True

    def ship_all(self, *, most_batches: int | None = None) -> None:
        """Ship what is left, to the end of the file or so many batches."""
        shipped = 0
        while shipped != most_batches and self.ship(final=True):
            shipped += 1

    def _columns(self, batch: Batch) -> dict[str, Any]:
        garbage = self._execution.journal_garbage + sum(entry.is_garbage for entry in batch.entries)
        columns: dict[str, Any] = {
            "journal_offset": batch.offset,
            "journal_count": batch.count,
            "journal_garbage": garbage,
        }
        if batch.forged and not self._execution.forged:
            columns["forged"] = batch.forged[:300]
        for entry in batch.entries:
            if entry.is_garbage:
                continue
            if entry.record.type == "ready" and self._execution.status == ExecutionStatus.STARTING:
                columns |= {"status": ExecutionStatus.RUNNING, "ready_at": DatabaseClock()}
            elif entry.record.type == "finished":
                columns["outcome"] = self._scrubbed(entry.record.data)
        return columns

    def _event(self, entry: Entry) -> NewEvent:
        data = {**self._scrubbed(entry.record.data), **self._execution.tags}
        self._moment = max(self._moment, _moment(entry.record.t))
        return NewEvent(
            entry.record.type, data, execution=self._execution.pk, offset=entry.offset, happened_at=self._moment
        )

    def _scrubbed(self, value: Any) -> Any:
        """The value without the execution's token, should the agent have printed it."""
        if isinstance(value, str):
            return value.replace(self._token, HIDDEN)
        if isinstance(value, Mapping):
            return {str(self._scrubbed(key)): self._scrubbed(item) for key, item in value.items()}
        if isinstance(value, list):
            return [self._scrubbed(item) for item in value]
        return value


def _moment(milliseconds: int) -> datetime:
    """What a record says, as far as there are such times."""
    return datetime.fromtimestamp(min(milliseconds, LAST_MILLISECOND) / 1000, UTC)


def release_connection() -> None:
    """Give this thread's connection back to the pool while it waits for the journal to grow."""
    if not connection.in_atomic_block:
        connection.close()
