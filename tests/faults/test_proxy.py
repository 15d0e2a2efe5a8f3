"""The proxy before PostgreSQL: what it loses is an answer, never a commit; what it does not lose arrives unchanged."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.faults.proxy import Proxy, proxy
from tests.stack.live import wait_for

Connection = psycopg.Connection[tuple[object, ...]]


@pytest.fixture
def through(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    upstream = Path(unquote(str(conninfo_to_dict(os.environ["DATABASE_URL"])["host"])))
    directory = tmp_path_factory.mktemp("p")
    with proxy(directory=directory, upstream=upstream) as running:
        yield running


@pytest.fixture
def direct() -> Iterator[Connection]:
    with psycopg.connect(os.environ["DATABASE_URL"], dbname="postgres", autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS proxied")
        connection.execute("CREATE TABLE proxied (id int)")
        yield connection
        connection.execute("DROP TABLE proxied")


def connected(through: Proxy, *, autocommit: bool = False) -> Connection:
    return psycopg.connect(through.url("postgres"), autocommit=autocommit, connect_timeout=10)


def kept(direct: Connection) -> list[object]:
    return [row[0] for row in direct.execute("SELECT id FROM proxied ORDER BY id")]


def insert_in_a_pipeline(connection: Connection, number: int) -> None:
    with connection.pipeline():
        connection.execute("INSERT INTO proxied VALUES (%s)", [number])
        connection.commit()


def test_what_is_passed_on_arrives_unchanged(through: Proxy) -> None:
    with connected(through) as connection:
        rows = connection.execute("SELECT repeat(chr(960), 100000), n FROM generate_series(1, 20) n").fetchall()
    assert rows == [("π" * 100_000, number) for number in range(1, 21)]


def test_a_lost_commit_has_really_been_committed(through: Proxy, direct: Connection) -> None:
    connection = connected(through)
    connection.execute("INSERT INTO proxied VALUES (1)")
    through.lose_next("commit")
    with pytest.raises(psycopg.OperationalError):
        connection.commit()
    assert kept(direct) == [1]
    assert through.lost == {"commit": 1, "write": 0}


def test_a_lost_commit_of_a_pipeline_of_messages_has_really_been_committed(through: Proxy, direct: Connection) -> None:
    connection = connected(through)
    through.lose_next("commit")
    with pytest.raises(psycopg.OperationalError):
        insert_in_a_pipeline(connection, 2)
    assert kept(direct) == [2]


def test_a_lost_answer_to_a_write_outside_of_a_transaction_has_taken_effect(through: Proxy, direct: Connection) -> None:
    connection = connected(through, autocommit=True)
    connection.execute("SELECT 1")
    through.lose_next("write")
    with pytest.raises(psycopg.OperationalError):
        connection.execute("INSERT INTO proxied VALUES (3)")
    assert kept(direct) == [3]


def test_a_rollback_and_a_failed_write_are_never_taken_for_a_commit(through: Proxy, direct: Connection) -> None:
    connection = connected(through)
    through.lose_next("commit")
    through.lose_next("write")
    connection.execute("INSERT INTO proxied VALUES (4)")
    connection.rollback()
    with pytest.raises(psycopg.errors.DivisionByZero):
        connection.execute("INSERT INTO proxied VALUES (1 / 0)")
    connection.rollback()
    assert connection.execute("SELECT count(*) FROM proxied").fetchone() == (0,)
    assert through.lost == {"commit": 0, "write": 0}
    connection.close()


def test_only_as_many_answers_are_lost_as_were_asked_for(through: Proxy, direct: Connection) -> None:
    through.lose_next("commit")
    with pytest.raises(psycopg.OperationalError), connected(through) as connection:
        connection.execute("INSERT INTO proxied VALUES (5)")
    with connected(through) as connection:
        connection.execute("INSERT INTO proxied VALUES (6)")
    assert kept(direct) == [5, 6]


def test_a_reset_cuts_open_connections_and_new_ones_work(through: Proxy) -> None:
    connection = connected(through)
    through.reset()
    with pytest.raises(psycopg.OperationalError):
        connection.execute("SELECT 1")
    with connected(through) as again:
        assert again.execute("SELECT 1").fetchone() == (1,)


def test_nothing_gets_through_a_black_hole_until_it_is_closed(through: Proxy) -> None:
    through.blackhole(on=True)
    with pytest.raises(psycopg.OperationalError, match="timeout"):
        psycopg.connect(through.url("postgres"), connect_timeout=2)
    through.blackhole(on=False)
    with connected(through) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_delay_holds_back_what_passes(through: Proxy) -> None:
    with connected(through, autocommit=True) as connection:
        through.delay(0.2)
        began = time.monotonic()
        connection.execute("SELECT 1")
        assert time.monotonic() - began >= 0.2
        through.delay(0)


def test_a_refused_client_is_told_at_once(through: Proxy) -> None:
    through.refuse(on=True)
    with pytest.raises(psycopg.OperationalError):
        connected(through)


def test_a_connection_that_is_closed_leaves_nothing_in_the_proxy(through: Proxy) -> None:
    connection = connected(through)
    assert through.connections() == 1
    connection.close()
    wait_for(lambda: through.connections() == 0, why="the end of the connection in the proxy")
