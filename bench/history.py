"""Whether thousands of finished runs in the database slow a hop down: measured by turns with them and without."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bench.figures import Figure, percentile
from bench.hops import measured_hops
from bench.installation import BenchFailed, Up
from bench.runs import finished_run

if TYPE_CHECKING:
    from django.db.models import Model

    from djinn.runs.models import Run

RUNS = 10_000
ROUNDS = 4
FIRST = 1_000_000_000
"""Below the primary keys of the rows that are put in and taken out again."""
MOST_EVENTS = 100
"""Events of one run at most: their primary keys are that far apart."""


def measure(home: Path, up: Up) -> list[Figure]:
    """Lines of hops without and with ten thousand copies of a finished run; the order changes with each round."""
    pattern = finished_run("single")
    without: list[float] = []
    among: list[float] = []
    measured_hops()  # the caches of all processes are warm for both
    for number in range(ROUNDS):
        if number % 2:
            among += _among_copies(pattern)
            without += measured_hops()
        else:
            without += measured_hops()
            among += _among_copies(pattern)
    return [
        Figure(f"hop among {RUNS:,} finished runs, p50", percentile(among, 0.5), "ms", at_most_ratio=1.1,
               baseline=percentile(without, 0.5), baseline_name="without them"),
    ]  # fmt: skip


def _among_copies(pattern: Run) -> list[float]:
    _put_in(pattern)
    try:
        return measured_hops()
    finally:
        _take_out()


def _put_in(pattern: Run) -> None:
    """Copies of the run with its step runs, executions, stream and events."""
    from djinn.events.models import Event, Stream
    from djinn.executions.models import Execution
    from djinn.runs.models import Run, StepRun

    steps = "(SELECT number FROM runs_steprun WHERE runs_steprun.execution_id = {}) + n * 10"
    pk = f"{FIRST} + n"
    mine = {"run": pattern.pk, "stream": Stream.objects.get(name=pattern.stream).pk}
    _copy(Run, "id = %(run)s", mine, id=pk, idempotency_key="NULL")
    _copy(
        Execution,
        "id IN (SELECT execution_id FROM runs_steprun WHERE run_id = %(run)s)",
        mine,
        id=f"{FIRST} + {steps.format('executions_execution.id')}",
        stream=f"'run-' || ({pk})",
        collected_at="clock_timestamp()",
    )
    own = f"{FIRST} + number + n * 10"
    _copy(StepRun, "run_id = %(run)s", mine, id=own, run_id=pk, execution_id=own)
    _copy(Stream, "id = %(stream)s", mine, id=pk, name=f"'run-' || ({pk})")
    _copy(
        Event,
        "stream_id = %(stream)s",
        mine,
        id=f"{FIRST} + n * {MOST_EVENTS} + seq",
        stream_id=pk,
        execution=f"{FIRST} + {steps.format('events_event.execution')}",
    )
    _tidy()


def _copy(model: type[Model], where: str, parameters: dict[str, int], **changed: str) -> None:
    """Copy the rows so many times, `n` of 1 and up; `changed` are columns with the SQL that gives their value."""
    from django.db import connection

    table = model._meta.db_table
    columns = [field.column for field in model._meta.concrete_fields if field.column]
    names = ", ".join(f'"{column}"' for column in columns)
    values = ", ".join(changed.get(column, f'{table}."{column}"') for column in columns)
    _unchecked(f"INSERT INTO {table} ({names}) SELECT {values} FROM {table}, generate_series(1, {RUNS}) AS n "
               f"WHERE {where}", parameters)  # fmt: skip
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT count(*) FROM {table} WHERE id > {FIRST}")
        count = cursor.fetchone()[0]
    if count < RUNS:
        raise BenchFailed(f"{RUNS} copies were to be in {table}, {count} are")


def _take_out() -> None:
    from djinn.events.models import Event, Stream
    from djinn.executions.models import Execution
    from djinn.runs.models import Run, StepRun

    for model in (Event, Stream, StepRun, Execution, Run):
        _unchecked(f"DELETE FROM {model._meta.db_table} WHERE id > {FIRST}", {})
    _tidy()


def _unchecked(statement: str, parameters: dict[str, int]) -> None:
    """Run it without the triggers that let only true histories in, and nothing out."""
    from django.db import connection, transaction

    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL session_replication_role = replica")
        cursor.execute(statement, parameters)


def _tidy() -> None:
    """What autovacuum would do sooner or later, so that it does not do it while something is measured."""
    from django.db import connection

    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")
