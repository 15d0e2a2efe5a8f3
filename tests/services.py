"""A pytest plugin: a real PostgreSQL and a real Redis for the session, started before Django reads its settings.

Named in `pyproject.toml` with `-p tests.services`. The process that starts pytest owns the servers; the workers of
pytest-xdist find them by the environment.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import tempfile
from pathlib import Path

from djinn.core.installation import servers
from djinn.core.installation.paths import Installation
from djinn.core.installation.processes import Process, Supervisor


def start() -> None:
    """Start both servers in a temporary folder and name them in the environment; stopped when the process ends."""
    home = Path(tempfile.mkdtemp(prefix="djinn-test-"))
    os.environ["DJINN_HOME"] = str(home)
    os.environ.setdefault("DJINN_RUNNER", "stub")
    installation = Installation(home)
    installation.make_directories()
    home.chmod(0o755)
    supervisor = Supervisor(directory=home, logs=installation.logs)
    atexit.register(_stop, supervisor, home, os.getpid())
    postgres = servers.postgres_server(installation, is_durable=False)
    redis = servers.redis_server(installation)
    database_url, redis_url = installation.database_url, installation.redis_url
    supervisor.start(
        Process("postgres", postgres.command, user=postgres.user, group=postgres.group, stop_signal=signal.SIGINT,
                is_ready=lambda: servers.postgres_answers(database_url))
    )  # fmt: skip
    supervisor.start(Process("redis", redis.command, is_ready=lambda: servers.redis_answers(redis_url)))
    supervisor.wait_ready("postgres", "redis", timeout_seconds=30)
    servers.ensure_database(database_url)
    os.environ["DATABASE_URL"], os.environ["REDIS_URL"] = database_url, redis_url


def _stop(supervisor: Supervisor, home: Path, owner: int) -> None:
    if os.getpid() == owner:
        supervisor.stop()
        shutil.rmtree(home, ignore_errors=True)


# All workers of pytest-xdist share one Redis; each has queues of its own there.
os.environ["DJINN_BROKER_PREFIX"] = f"djinn-{os.environ.get('PYTEST_XDIST_WORKER', 'tests')}-"

if "PYTEST_XDIST_WORKER" not in os.environ and "DJINN_TEST_SERVERS" not in os.environ:
    os.environ["DJINN_TEST_SERVERS"] = "started"
    start()
