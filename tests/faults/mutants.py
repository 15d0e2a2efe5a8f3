"""Our own code, broken on purpose: each context manager switches one safeguard off, and on again.

Only `test_mutations.py` uses them. A guard of the database is dropped and put back, one of the code replaced by name.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connection, transaction

from djinn.core import faults
from djinn.core import transition as transitions
from djinn.core.installation.paths import present_installation
from djinn.events.log import append
from djinn.executions import conclude
from djinn.executions.ending import Ending
from djinn.executions.lease import Lease
from djinn.executions.models import Execution
from djinn.executions.relay import Relay
from djinn.executions.states import ExecutionStatus, Reason
from djinn.runner.base import ContainerState
from djinn.runner.journal import read_journal
from djinn.runs import claiming, engine, sweep, turn
from djinn.runs.holds import Hold
from djinn.runs.models import Run


@contextmanager
def replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    """Another value under that name, until the block ends."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextmanager
def without_constraint(table: str, name: str) -> Iterator[None]:
    """The table without a constraint or a unique index. Rows that it would have refused are removed with the test's."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = %s", [name])
        row = cursor.fetchone()
        cursor.execute("SELECT pg_get_indexdef(%s::regclass)", [name])
        index = cursor.fetchone()[0]
        cursor.execute(f"ALTER TABLE {table} DROP CONSTRAINT {name}" if row else f"DROP INDEX {name}")
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute(f"TRUNCATE {table} CASCADE")
            cursor.execute(f"ALTER TABLE {table} ADD CONSTRAINT {name} {row[0]}" if row else index)


@contextmanager
def without_trigger(table: str, name: str) -> Iterator[None]:
    """The table without that trigger."""
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {table} DISABLE TRIGGER {name}")
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute(f"ALTER TABLE {table} ENABLE TRIGGER {name}")


@contextmanager
def armed(rules: str) -> Iterator[None]:
    """This very process with crash points that fire; their hits are counted afresh."""
    parsed, problems = faults.parse(rules)
    assert not problems, problems
    for name in parsed:
        (present_installation().home / faults.FOLDER / name).unlink(missing_ok=True)
    with replaced(faults, "_rules", parsed):
        yield


# --- Safeguards of the code -------------------------------------------------------------------------------------------
def without_fencing() -> Any:
    """A worker's writes name the row, but not the token under which they are made."""

    def write(self: Lease, **columns: Any) -> None:
        Execution.objects.filter(pk=self.execution_id).update(**columns)

    return replaced(Lease, "write", write)


def with_the_offset_apart() -> Any:
    """The relay stores the journal's offset and the events in two transactions."""

    def ship(self: Relay, *, final: bool = False) -> bool:
        row = self._execution
        batch = read_journal(self._path, offset=row.journal_offset, count=row.journal_count, final=final)
        if not batch.entries:
            return False
        columns = self._columns(batch)
        self._lease.write(**columns)
        for name, value in columns.items():
            setattr(row, name, value)
        faults.fault("relay.offset_written")
        with transaction.atomic():
            append(row.stream, [self._event(entry) for entry in batch.entries])
        return True

    return replaced(Relay, "ship", ship)


def with_free_transitions() -> Any:
    """A status changes whatever it is now."""

    def transition(row: Any, to: str, *, moves: Any, where: Any = None, **columns: Any) -> bool:
        return bool(type(row)._default_manager.filter(pk=row.pk).update(status=to, **columns))

    return replaced(transitions, "transition", transition)


class _Unlocked:
    """Stands for `Run` where a turn takes it: its manager locks nothing."""

    class objects:  # noqa: N801  named like a manager
        @staticmethod
        def select_for_update(**_: Any) -> Any:
            return Run.objects.all()


def without_the_lock_of_a_turn() -> Any:
    """A turn reads the run without locking its row."""
    return replaced(turn, "Run", _Unlocked)


def with_exit_codes_that_decide() -> Any:
    """An execution ends as its container's exit code says, whatever the journal's last record tells."""

    def ending_of(*, state: ContainerState, **_: Any) -> Ending:
        if state.exit_code == 0:
            return Ending(ExecutionStatus.EXITED)
        return Ending(ExecutionStatus.LOST, Reason.LOST, f"exit code {state.exit_code}")

    return replaced(conclude, "ending_of", ending_of)


def without_the_sweep() -> Any:
    """Nobody rings again for what waits too long."""
    return replaced(sweep, "sweep", lambda: 0)


def without_asking_what_holds_a_run() -> Any:
    """A worker claims whatever is queued: in cancelled and paused runs, too."""
    return replaced(claiming, "hold_on", lambda run_id: Hold.NONE)


def with_successes_that_come_too_late() -> Any:
    """A step succeeds with its execution, whenever its run was cancelled."""
    return replaced(engine, "_came_too_late", lambda turn, ended_at: False)


def without_the_guard_of_a_start() -> Any:
    """The runtime in a container begins again when the container is started again."""
    return replaced(sys.modules[__name__], "RUNTIME", TOLERANT)


RUNTIME = "import sys; from djinn_runtime.supervisor import main; sys.exit(main(sys.argv[1:]))"
TOLERANT = """
import os, sys
made = os.mkdir
os.mkdir = lambda path, *mode: None if os.path.isdir(path) else made(path, *mode)
from djinn_runtime.supervisor import main
sys.exit(main(sys.argv[1:]))
"""
