"""The checker's view of the test's own database and folders, where workers are function calls."""

from __future__ import annotations

from typing import Any

import psycopg
from django.conf import settings
from django.db import connection
from psycopg.rows import dict_row

from djinn.core.installation.paths import Installation
from tests.faults import content, order
from tests.faults.harness import AUDIT, Watched
from tests.faults.seen import Violation, look
from tests.stack.live import Row

INVARIANTS = (
    order.final_is_final,
    order.only_holders_write,
    content.work_begins_once,
    content.log_is_the_journals,
    order.nothing_is_open,
    order.nothing_runs_on,
    order.failures_have_reasons,
)
"""Those that need no processes and no HTTP: I1 to I6, and I12."""


class Inside(Watched):
    """A stack without processes."""

    def __init__(self, installation: Installation) -> None:
        self.installation = installation
        self.archive = installation.home / "archive"
        self.runner = "stub"
        parameters = connection.get_connection_params()
        self._session = psycopg.connect(
            host=parameters["host"], user=parameters.get("user"), dbname=parameters["dbname"], autocommit=True,
            row_factory=dict_row,
        )  # fmt: skip

    def watch(self) -> None:
        """Make the audit, empty."""
        self._session.execute(AUDIT)  # type: ignore[arg-type]
        self._session.execute("TRUNCATE audit")

    def close(self) -> None:
        """Remove the audit."""
        for table in ("runs_run", "runs_steprun", "executions_execution"):
            self._session.execute(f"DROP TRIGGER audit ON {table}")  # type: ignore[arg-type]
        self._session.execute("DROP TABLE audit")
        self._session.close()

    def rows(self, query: str, *values: Any) -> list[Row]:
        return self._session.execute(query, values).fetchall()  # type: ignore[arg-type,return-value]

    def broken(self, *runs: int) -> set[str]:
        """The invariants that these runs break."""
        seen = look(self, runs)
        found: list[Violation] = [violation for invariant in INVARIANTS for violation in invariant(seen)]
        return {violation.invariant for violation in found}


OWNER = settings.WORKER_NAME
"""Who this process is, to the leases and to the database."""
