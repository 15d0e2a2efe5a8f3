"""PostgreSQL is away for many leases while a container works; migrations that are killed are run again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql

from djinn.core.installation.paths import PROJECT
from tests.faults.checker import check
from tests.faults.harness import SIDE_NAME, linear, marks, quiet
from tests.faults.stage import Stage
from tests.stack.live import wait_for

THINGS, AWAY_FROM, AWAY_UNTIL = 46, 2, 42
"""Each thing takes 0.5 s: the outage is 20 s long, ten leases."""
MIGRATED = "migrated_in_pieces"
KILLED_AT = (1, 25)
"""How many migrations were applied when it is killed."""


@pytest.fixture
def stage(image: str) -> Iterator[Stage]:
    stage = Stage(image=image)
    try:
        stage.up()
        yield stage
    finally:
        stage.close(keep=False)


@pytest.mark.docker
@pytest.mark.xdist_group("storm")
@pytest.mark.timeout(300)
@pytest.mark.root
def test_a_container_works_on_while_the_database_is_away_and_everything_is_told_afterwards(stage: Stage) -> None:
    stage.add_pipeline("line", linear(1, things=THINGS, seconds=0.5))
    run = stage.intend("line")
    side = wait_for(lambda: [*stage.installation.executions.glob(f"*/{SIDE_NAME}")], why="the script")[0]

    def done() -> int:
        return sum(mark["what"] == "did" for mark in marks(side))

    wait_for(lambda: done() >= AWAY_FROM, why="the script's first things")
    stage.proxy.refuse(on=True)
    stage.proxy.reset()
    told = len(stage.events(run))
    wait_for(lambda: done() >= AWAY_UNTIL, seconds=60, why="the script's work during the outage")
    assert len(stage.events(run)) == told
    stage.proxy.refuse(on=False)
    quiet(stage, [run])
    assert [mark["what"] for mark in marks(side)].count("start") == 1
    assert [step["status"] for step in stage.steps(run)] == ["succeeded"]
    assert [str(violation) for violation in check(stage, [run])] == []


@pytest.fixture
def empty_database() -> Iterator[str]:
    """A database without tables: its URL."""
    base = os.environ["DATABASE_URL"]
    with psycopg.connect(base, dbname="postgres", autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(MIGRATED)))
        try:
            yield base.replace("/djinn?", f"/{MIGRATED}?")
        finally:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(MIGRATED)))


def applied(url: str) -> int:
    """How many migrations have been applied."""
    with psycopg.connect(url) as connection:
        if connection.execute("SELECT to_regclass('django_migrations')").fetchone() == (None,):
            return 0
        row = connection.execute("SELECT count(*) FROM django_migrations").fetchone()
    return int(row[0]) if row else 0


def migrate(url: str, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "manage.py", "migrate", "--verbosity", "0", *options]
    return subprocess.Popen(command, cwd=PROJECT, env={**os.environ, "DATABASE_URL": url})


@pytest.mark.timeout(180)
def test_migrations_that_are_killed_are_finished_by_the_next_attempt(empty_database: str) -> None:
    for number in KILLED_AT:
        process = migrate(empty_database)
        wait_for(lambda number=number: applied(empty_database) >= number, seconds=60, why=f"migration {number}")
        process.send_signal(signal.SIGKILL)
        assert process.wait(30) == -signal.SIGKILL
    assert migrate(empty_database, "--check").wait(60) == 1
    assert migrate(empty_database).wait(60) == 0
    assert migrate(empty_database, "--check").wait(60) == 0
