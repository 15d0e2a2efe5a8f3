"""Invariants of what others see and of what is left: I8, I9, I10, I11."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
from django.utils.crypto import salted_hmac

from djinn.core.installation.paths import PROJECT
from djinn.runner.base import Phase
from tests.faults.harness import CANARY, Watched
from tests.faults.seen import FINAL_EXECUTIONS, FINAL_RUNS, Seen, Violation
from tests.stack.live import wait_for

PAGE = 1000
MOST_STREAMED = 50
"""How many runs are read as server-sent events too; all are read as JSON."""
OVERDUE_SECONDS = 60.0
SALT = "djinn.executions.token"
"""Of the tokens of executions, as `djinn/executions/tokens.py` has it; importing that needs Django's registry."""
TOKEN = re.compile(rb"\b(\d{1,18})\.([0-9a-f]{64})\b")
SOCKETS = frozenset({"redis.sock", "gateway.sock", ".s.PGSQL.5432"})
OURS = ("manage.py", "-m djinn.core.serving", "-m celery", "postgres", "redis-server")


# --- I8 ---------------------------------------------------------------------------------------------------------------
def readers_see_the_log(seen: Seen) -> Iterator[Violation]:
    """I8: pages of JSON for all runs, server-sent events for the first ones, against the rows."""
    for index, run in enumerate(seen.runs):
        rows = [(event["seq"], event["type"], event["data"]) for event in seen.events(run["id"])]
        readers: dict[str, Callable[[Seen, int, int], list[Any]]] = {"JSON": _pages}
        if index < MOST_STREAMED:
            readers["SSE"] = _streamed
        for name, read in readers.items():
            found = read(seen, run["id"], len(rows))
            if found != rows:
                yield Violation("I8", f"run {run['id']}", f"{name} shows {len(found)} events, the log has {len(rows)}")


def _pages(seen: Seen, run: int, count: int) -> list[Any]:
    found: list[Any] = []
    while True:
        after = found[-1][0] if found else 0
        status, body = _answer(seen, f"runs/{run}/events/?after={after}&limit={PAGE}")
        if status != 200 or not body["events"]:
            return found
        found += [(event["seq"], event["type"], event["data"]) for event in body["events"]]


def _answer(seen: Seen, path: str) -> tuple[int, Any]:
    """The API's answer, when the web process is there; it may just have been started again."""

    def asked() -> tuple[int, Any] | None:
        try:
            return seen.live.call("GET", path)
        except OSError:
            return None

    return wait_for(asked, seconds=30, why=f"an answer to {path}")  # type: ignore[no-any-return]


def _streamed(seen: Seen, run: int, count: int) -> list[Any]:
    """The first `count` server-sent events of the run."""
    _answer(seen, f"runs/{run}/")
    headers = {"Authorization": f"Bearer {seen.live.key}", "Accept": "text/event-stream"}
    request = urllib.request.Request(f"{seen.live.url}/api/v1/runs/{run}/events/", headers=headers)
    found: list[Any] = []
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            while len(found) < count and (line := answer.readline()):
                if line.startswith(b"data: {"):
                    value = json.loads(line.removeprefix(b"data: "))
                    found += [(value["seq"], value["type"], value["data"])] if "seq" in value else []
    except OSError:
        return found  # it stopped before it had told all
    return found


# --- I9 ---------------------------------------------------------------------------------------------------------------
def run_follows_from_steps(seen: Seen) -> Iterator[Violation]:
    """I9: asked of the flow, in a process that reads this stack's database."""
    ended = [run for run in seen.runs if run["status"] in FINAL_RUNS]
    if not ended:
        return
    told = decided(seen, [run["id"] for run in ended])
    for run in ended:
        kind, status = told.get(str(run["id"]), ["undecided", "no such run"])
        if (kind, status) != ("finish", run["status"]):
            yield Violation("I9", f"run {run['id']}", f"is {run['status']}, its steps say: {kind} {status}")


def decided(seen: Seen, runs: list[int]) -> dict[str, list[str]]:
    """What the flow says of these runs."""
    command = [sys.executable, "-m", "tests.faults.decide", *map(str, runs)]
    done = subprocess.run(
        command, cwd=PROJECT, env=seen.live.environment(), capture_output=True, text=True, timeout=120, check=False
    )
    if done.returncode:
        raise RuntimeError(f"the flow could not be asked: {done.stderr[-2000:]}")
    told: dict[str, list[str]] = json.loads(done.stdout)
    return told


# --- I10 --------------------------------------------------------------------------------------------------------------
def secrets_stay(seen: Seen) -> Iterator[Violation]:
    """I10: the provider's key and the executions' tokens, in rows, logs, journals, and what containers were given."""
    key = (seen.live.installation.home / "secret_key").read_text(encoding="ascii")

    def is_token(number: bytes, digits: bytes) -> bool:
        return salted_hmac(SALT, number.decode(), secret=key, algorithm="sha256").hexdigest() == digits.decode()

    for place, text in _texts(seen):
        if CANARY.encode() in text:
            yield Violation("I10", place, "holds the provider's key")
        if any(is_token(number, digits) for number, digits in set(TOKEN.findall(text))):
            yield Violation("I10", place, "holds the token of an execution")


def _texts(seen: Seen) -> Iterator[tuple[str, bytes]]:
    live = seen.live
    yield from _tables(live.installation.database_url)
    for path in (*sorted(live.installation.logs.glob("*.log")), live.home / "up.log"):
        yield f"log {path.name}", path.read_bytes()
    for number in seen.executions:
        yield f"journal of execution {number}", seen.journal(number)
    for name in live.containers() if live.runner == "docker" else ():
        yield f"container {name}", _inspected(live, name)


def _inspected(live: Watched, name: str) -> bytes:
    """What the engine tells of a container; nothing of one that was collected this very moment."""
    try:
        return live.docker("inspect", name).encode()
    except subprocess.CalledProcessError:
        if name in live.containers():
            raise
        return b""


def _tables(database_url: str) -> Iterator[tuple[str, bytes]]:
    """The text of every table, a piece at a time."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        names = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1").fetchall()
        for (name,) in names:
            with connection.cursor().copy(f'COPY "{name}" TO STDOUT') as rows:  # type: ignore[arg-type]
                yield f"table {name}", b"".join(bytes(piece) for piece in rows)


# --- I11 --------------------------------------------------------------------------------------------------------------
def nothing_is_left(seen: Seen) -> Iterator[Violation]:
    """I11: containers, directories, sockets, processes and sessions that nobody needs any more."""
    yield from _containers_left(seen)
    yield from _directories_left(seen)
    for path in seen.live.sockets():
        if Path(path).name not in SOCKETS:
            yield Violation("I11", f"socket {path}", "is nobody's")
    is_at_rest = all(status in FINAL_EXECUTIONS for status in seen.states.values())
    if is_at_rest and Phase.RUNNING not in seen.phases.values():  # a container that runs on is I6's
        for pid, line in seen.live.processes().items():
            if not any(mark in line for mark in OURS):
                yield Violation("I11", f"process {pid}", f"runs on: {line[:200]}")
    for row in seen.live.rows(
        "SELECT pid, left(query, 100) AS query FROM pg_stat_activity"
        " WHERE state LIKE 'idle in transaction%%' AND state_change < clock_timestamp() - interval '3 s'"
    ):
        yield Violation("I11", f"session {row['pid']}", f"keeps a transaction open: {row['query']}")


def _containers_left(seen: Seen) -> Iterator[Violation]:
    for key in seen.phases:
        if not key.isdigit() or int(key) not in seen.states:
            yield Violation("I11", f"container of {key}", "is of an execution that does not exist")
        elif int(key) in seen.collected:
            yield Violation("I11", f"container of {key}", "is there, though it was collected")
    overdue = "SELECT id FROM executions_execution WHERE collected_at IS NULL AND host <> ''"
    overdue += " AND ended_at < clock_timestamp() - make_interval(secs => %s)"
    for row in seen.live.rows(overdue, seen.live.keep_seconds + OVERDUE_SECONDS):
        yield Violation("I11", f"execution {row['id']}", "ended long ago and was not collected")


def _directories_left(seen: Seen) -> Iterator[Violation]:
    home = seen.live.installation
    for path in home.executions.glob("[0-9]*"):
        if int(path.name) not in seen.states:
            yield Violation("I11", f"directory {path.name}", "is of an execution that does not exist")
    runs = {f"run-{row['id']}" for row in seen.live.rows("SELECT id FROM runs_run")}
    for path in home.workspaces.glob("*"):
        if path.name not in runs:
            yield Violation("I11", f"workspace {path.name}", "is of a run that does not exist")
