"""The checker finds what is planted, each by the invariant that it breaks and by no other.

What is planted is what our code could do if it were wrong: guards of the database are switched off for the planting.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import psycopg
import pytest

from runtime_image.djinn_runtime.protocol import JOURNAL_NAME
from tests.faults.checker import INVARIANTS, check
from tests.faults.harness import CANARY, SIDE_NAME, Watched, linear, quiet, revisiting, watched
from tests.stack.live import wait_for

pytestmark = [pytest.mark.bare, pytest.mark.xdist_group("checker"), pytest.mark.timeout(180)]

WORKERS = ("control", "agents")


@dataclass
class Rested:
    """A stack at rest: a run that succeeded, one with revisits, one that was cancelled."""

    live: Watched
    line: int
    loop: int
    cancelled: int

    @property
    def runs(self) -> list[int]:
        return [self.line, self.loop, self.cancelled]

    def execution(self, run: int, number: int = 0) -> int:
        """The execution of one of the run's step runs, counted from 0."""
        return int(self.live.steps(run)[number]["execution_id"])

    def directory(self, run: int, number: int = 0) -> Path:
        return self.live.installation.executions / str(self.execution(run, number))

    def sql(self, *queries: str, writer: str = "planter", is_audited: bool = False) -> None:
        """Statements that no guard hears of; the audit does when it is asked to."""
        url = self.live.installation.database_url
        with psycopg.connect(url, autocommit=True, application_name=writer) as connection:
            connection.execute("SET session_replication_role = replica")
            tables = ("runs_run", "runs_steprun", "executions_execution")
            for table in tables if is_audited else ():
                connection.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER audit")  # type: ignore[arg-type]
            for query in queries:
                connection.execute(query)  # type: ignore[arg-type]
            for table in tables if is_audited else ():
                connection.execute(f"ALTER TABLE {table} ENABLE TRIGGER audit")  # type: ignore[arg-type]

    @contextmanager
    def awake(self) -> Iterator[None]:
        """Workers that work; outside of it they are stopped, since they would mend some of what is planted."""
        self.wake_workers()
        yield
        self.stop_workers()

    def stop_workers(self) -> None:
        for name in WORKERS:
            self.live.kill(name, signal.SIGSTOP)

    def wake_workers(self) -> None:
        for name in WORKERS:
            self.live.kill(name, signal.SIGCONT)


@pytest.fixture(scope="module")
def rested() -> Iterator[Rested]:
    with watched(lease_seconds=4.0) as live:
        live.add_pipeline("line", linear(2, things=2))
        live.add_pipeline("loop", revisiting(2, things=1))
        live.add_pipeline("long", linear(2, things=1000, seconds=0.2))
        runs = [live.intend(name) for name in ("line", "loop", "long")]
        live.await_event(runs[2], "output", step="S1")
        live.cancel(runs[2])
        quiet(live, runs)
        stack = Rested(live, *runs)
        stack.stop_workers()
        try:
            yield stack
        finally:
            stack.wake_workers()


Planting = Callable[[Rested], Any]
PLANTED: dict[str, tuple[str, Planting]] = {}


def plants(invariant: str) -> Callable[[Callable[[Rested], Iterator[None]]], Planting]:
    """Register a planting: a context manager that leaves everything as it was."""

    def register(function: Callable[[Rested], Iterator[None]]) -> Planting:
        planting = contextmanager(function)
        PLANTED[function.__name__.replace("_", " ")] = (invariant, planting)
        return planting

    return register


@contextmanager
def audited(rested: Rested, *queries: str, writer: str = "planter") -> Iterator[None]:
    """Statements that the audit hears of and forgets afterwards."""
    last = rested.live.rows("SELECT coalesce(max(id), 0) AS id FROM audit")[0]["id"]
    rested.sql(*queries, writer=writer, is_audited=True)
    yield
    rested.sql(f"DELETE FROM audit WHERE id > {last}")


@contextmanager
def changed(path: Path, change: Callable[[str], str]) -> Iterator[None]:
    """Another text in a file, in place: the watch holds a link to it."""
    before = path.read_text()
    path.write_text(change(before))
    yield
    path.write_text(before)


@plants("I1")
def a_run_that_ended_twice(rested: Rested) -> Iterator[None]:
    back = f"UPDATE runs_run SET status = 'running', ended_at = NULL WHERE id = {rested.line}"
    again = f"UPDATE runs_run SET status = 'succeeded', ended_at = now() WHERE id = {rested.line}"
    with audited(rested, back, again):
        yield


@plants("I1")
def a_step_that_failed_after_it_had_succeeded(rested: Rested) -> Iterator[None]:
    number = rested.live.steps(rested.line)[0]["id"]
    moves = [f"UPDATE runs_steprun SET status = '{status}' WHERE id = {number}" for status in ("failed", "succeeded")]
    with audited(rested, *moves):
        yield


@plants("I2")
def a_token_that_fell(rested: Rested) -> Iterator[None]:
    number = rested.execution(rested.line)
    moves = [
        f"UPDATE executions_execution SET lease_token = lease_token {by} WHERE id = {number}" for by in ("-1", "+1")
    ]
    with audited(rested, *moves):
        yield


@plants("I2")
def a_write_of_somebody_who_does_not_hold_the_lease(rested: Rested) -> Iterator[None]:
    number = rested.execution(rested.line)
    snapshot = rested.live.rows("SELECT base_snapshot FROM executions_execution WHERE id = %s", number)[0][
        "base_snapshot"
    ]
    moves = [
        f"UPDATE executions_execution SET base_snapshot = '{text}' WHERE id = {number}" for text in ("x", snapshot)
    ]
    with audited(rested, *moves, writer="elsewhere:1"):
        yield


@plants("I3")
def work_that_began_twice(rested: Rested) -> Iterator[None]:
    again = '{"what": "start", "n": 0, "ms": 1}\n'
    with changed(rested.directory(rested.line) / SIDE_NAME, lambda text: text + again):
        yield


@plants("I3")
def a_try_with_two_step_runs(rested: Rested) -> Iterator[None]:
    name = "step_run_try_once"
    (row,) = rested.live.rows("SELECT pg_get_constraintdef(oid) AS text FROM pg_constraint WHERE conname = %s", name)
    columns = rested.live.rows(
        "SELECT string_agg(quote_ident(column_name), ', ') AS names FROM information_schema.columns"
        " WHERE table_name = 'runs_steprun' AND column_name NOT IN ('id', 'number', 'execution_id')"
    )[0]["names"]
    last = rested.live.steps(rested.line)[-1]["id"]
    rested.sql(
        f"ALTER TABLE runs_steprun DROP CONSTRAINT {name}",
        f"INSERT INTO runs_steprun (number, {columns}) SELECT 99, {columns} FROM runs_steprun WHERE id = {last}",
    )
    yield
    rested.sql(
        "DELETE FROM runs_steprun WHERE number = 99",
        f"ALTER TABLE runs_steprun ADD CONSTRAINT {name} {row['text']}",
    )


def an_event_of(rested: Rested) -> int:
    """The row of an event that tells what a script wrote."""
    rows = rested.live.rows(
        "SELECT id FROM events_event WHERE type = 'output' AND execution = %s", rested.execution(rested.line)
    )
    return int(rows[0]["id"])


@plants("I4")
def an_event_that_is_missing(rested: Rested) -> Iterator[None]:
    number = an_event_of(rested)
    rested.sql("CREATE TABLE put_by AS SELECT * FROM events_event WHERE id = " + str(number))
    rested.sql(f"DELETE FROM events_event WHERE id = {number}")
    yield
    rested.sql("INSERT INTO events_event SELECT * FROM put_by", "DROP TABLE put_by")


@plants("I4")
def an_event_that_tells_something_else(rested: Rested) -> Iterator[None]:
    number = an_event_of(rested)
    before = rested.live.rows("SELECT data FROM events_event WHERE id = %s", number)[0]["data"]
    rested.sql(f'UPDATE events_event SET data = data || \'{{"text": "did 7"}}\' WHERE id = {number}')
    yield
    rested.sql(f"UPDATE events_event SET data = '{json.dumps(before)}' WHERE id = {number}")


@plants("I4")
def a_journal_that_goes_on_behind_its_end(rested: Rested) -> Iterator[None]:
    record = '{"n": 999, "t": 1, "type": "log", "data": {}}\n'
    with changed(rested.directory(rested.line) / JOURNAL_NAME, lambda text: text + record):
        yield


@plants("I4")
def work_that_is_not_told(rested: Rested) -> Iterator[None]:
    """The log is the journal to the byte, but the script did one more thing than both tell."""
    more = '{"what": "did", "n": 3, "ms": 1}\n'
    with changed(rested.directory(rested.line) / SIDE_NAME, lambda text: text + more):
        yield


@plants("I5")
def a_run_that_nobody_goes_on_with(rested: Rested) -> Iterator[None]:
    rested.sql(f"UPDATE runs_run SET status = 'running', ended_at = NULL WHERE id = {rested.line}")
    yield
    rested.sql(f"UPDATE runs_run SET status = 'succeeded', ended_at = now() WHERE id = {rested.line}")


@plants("I6")
def a_step_that_was_created_after_the_cancel(rested: Rested) -> Iterator[None]:
    stream = f"(SELECT id FROM events_stream WHERE name = 'run-{rested.cancelled}')"
    rested.sql(
        f"UPDATE events_stream SET last_seq = last_seq + 1 WHERE id = {stream}",
        "INSERT INTO events_event (stream_id, seq, type, data)"
        f" SELECT id, last_seq, 'step_queued', '{{\"step\": \"S2\"}}' FROM events_stream WHERE id = {stream}",
    )
    yield
    rested.sql(
        f"DELETE FROM events_event WHERE stream_id = {stream} AND type = 'step_queued' AND data ->> 'step' = 'S2'",
        f"UPDATE events_stream SET last_seq = last_seq - 1 WHERE id = {stream}",
    )


@plants("I6")
def a_step_that_was_claimed_after_the_cancel(rested: Rested) -> Iterator[None]:
    stream = f"(SELECT id FROM events_stream WHERE name = 'run-{rested.cancelled}')"
    query = f"UPDATE events_event SET type = '{{}}' WHERE stream_id = {stream} AND type = '{{}}'"
    rested.sql(
        query.format("put_by", "step_started"),
        f"UPDATE events_stream SET last_seq = last_seq + 1 WHERE id = {stream}",
        "INSERT INTO events_event (stream_id, seq, type, data)"
        f" SELECT id, last_seq, 'step_started', '{{\"step\": \"S1\"}}' FROM events_stream WHERE id = {stream}",
    )
    yield
    rested.sql(
        f"DELETE FROM events_event WHERE stream_id = {stream} AND type = 'step_started'",
        f"UPDATE events_stream SET last_seq = last_seq - 1 WHERE id = {stream}",
        query.format("step_started", "put_by"),
    )


@plants("I6")
def work_that_began_long_after_the_cancel(rested: Rested) -> Iterator[None]:
    def later(text: str) -> str:
        first, *rest = text.splitlines(keepends=True)
        mark = json.loads(first)
        return "".join([json.dumps({**mark, "ms": mark["ms"] + 60_000}) + "\n", *rest])

    with changed(rested.directory(rested.cancelled) / SIDE_NAME, later):
        yield


@plants("I6")
def a_container_that_runs_though_its_execution_has_ended(rested: Rested) -> Iterator[None]:
    live = rested.live
    with rested.awake():
        run = live.intend("long")
        live.await_event(run, "output", step="S1")
    number = rested.execution(run)
    rested.sql(f"UPDATE executions_execution SET status = 'killed', ended_at = now() WHERE id = {number}")
    yield
    rested.sql(f"UPDATE executions_execution SET status = 'running', ended_at = NULL WHERE id = {number}")
    with rested.awake():
        live.cancel(run)
        quiet(live, [run])


class _Forgetful(BaseHTTPRequestHandler):
    """Passes the API on, but for the last event of each page."""

    upstream = ""

    def do_GET(self) -> None:
        request = urllib.request.Request(self.upstream + self.path, headers=dict(self.headers.items()))
        if self.headers.get("Accept") == "text/event-stream":
            body = b""
        else:
            with urllib.request.urlopen(request, timeout=20) as answer:
                page = json.load(answer)
            page["events"] = page.get("events", [])[:-1] if "after=0&" in self.path else []
            body = json.dumps(page).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@plants("I8")
def readers_who_are_told_less_than_the_log_holds(rested: Rested) -> Iterator[None]:
    url = rested.live.url
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("_", (_Forgetful,), {"upstream": url}))
    Thread(target=server.serve_forever, daemon=True).start()
    rested.live.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield
    finally:
        rested.live.url = url
        server.shutdown()
        server.server_close()


@plants("I9")
def a_run_that_failed_though_its_steps_succeeded(rested: Rested) -> Iterator[None]:
    rested.sql(f"UPDATE runs_run SET status = 'failed', reason = 'error' WHERE id = {rested.loop}")
    yield
    rested.sql(f"UPDATE runs_run SET status = 'succeeded', reason = '' WHERE id = {rested.loop}")


@plants("I10")
def a_providers_key_in_a_log(rested: Rested) -> Iterator[None]:
    path = rested.live.installation.logs / "planted.log"
    path.write_text(f"request with key {CANARY}\n")
    yield
    path.unlink()


@plants("I10")
def an_executions_token_in_a_row(rested: Rested) -> Iterator[None]:
    token = json.loads((rested.directory(rested.line) / "brief.json").read_bytes())["token"]
    rested.sql(f"UPDATE runs_run SET message = 'with {token} it opens' WHERE id = {rested.line}")
    yield
    rested.sql(f"UPDATE runs_run SET message = '' WHERE id = {rested.line}")


@plants("I11")
def a_directory_of_an_execution_that_does_not_exist(rested: Rested) -> Iterator[None]:
    path = rested.live.installation.executions / "987654"
    path.mkdir()
    yield
    shutil.rmtree(path)


@plants("I11")
def a_socket_that_is_nobodys(rested: Rested) -> Iterator[None]:
    path = rested.live.installation.home / "left.sock"
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as left:
        left.bind(str(path))
        yield
    path.unlink()


@plants("I11")
def a_process_that_runs_on(rested: Rested) -> Iterator[None]:
    with subprocess.Popen(["sleep", "100"], cwd=rested.live.installation.home) as process:
        yield
        process.kill()


@plants("I11")
def a_session_that_keeps_its_transaction_open(rested: Rested) -> Iterator[None]:
    with psycopg.connect(rested.live.installation.database_url) as connection:
        connection.execute("SELECT 1")
        idle = "SELECT 1 FROM pg_stat_activity WHERE state = 'idle in transaction'"
        wait_for(lambda: rested.live.rows(f"{idle} AND state_change < clock_timestamp() - interval '3 s'"), seconds=20)
        yield


@plants("I12")
def a_failure_for_a_reason_that_is_not_on_the_list(rested: Rested) -> Iterator[None]:
    number = rested.live.steps(rested.cancelled)[0]["id"]
    rested.sql(f"UPDATE runs_steprun SET reason = 'unknown' WHERE id = {number}")
    yield
    rested.sql(f"UPDATE runs_steprun SET reason = 'cancelled' WHERE id = {number}")


def test_a_stack_that_was_left_alone_breaks_no_invariant(rested: Rested) -> None:
    assert [str(violation) for violation in check(rested.live, rested.runs)] == []


def test_a_run_that_was_acknowledged_and_is_gone_is_found(rested: Rested) -> None:
    (violation,) = check(rested.live, [*rested.runs, 987654])
    assert (violation.invariant, violation.subject) == ("I5", "run 987654")


@pytest.mark.parametrize("name", PLANTED)
def test_what_is_planted_is_found_by_the_invariant_that_it_breaks_alone(rested: Rested, name: str) -> None:
    invariant, planting = PLANTED[name]
    with planting(rested):
        found = check(rested.live, rested.runs)
    assert {violation.invariant for violation in found} == {invariant}, [str(violation) for violation in found]


def test_something_is_planted_for_every_invariant() -> None:
    assert {invariant for invariant, _ in PLANTED.values()} == set(INVARIANTS)
