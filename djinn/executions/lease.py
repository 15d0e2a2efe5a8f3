"""Leases: who supervises an execution now.

A claim raises the execution's `lease_token` by one and sets when the lease ends, by the database's clock. Every later
write of that worker names the token; when somebody else has claimed since, it matches no row and the worker stops.
A worker that could not renew in time stops touching its container by its own monotonic clock, before anyone may claim.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import structlog
from django.conf import settings
from django.db import connection, models
from django.db.models.functions import Coalesce

from djinn.core.database import released
from djinn.core.errors import AppError
from djinn.core.faults import fault
from djinn.executions.models import Execution
from djinn.executions.states import OPEN

log = structlog.get_logger(__name__)

OPEN_STATES = sorted(OPEN)

CLAIM = """
UPDATE executions_execution
   SET lease_token = lease_token + 1, lease_owner = %(owner)s, host = %(host)s,
       lease_expires_at = clock_timestamp() + make_interval(secs => %(seconds)s)
 WHERE id = %(id)s AND status = ANY(%(open)s) AND host IN ('', %(host)s)
   AND (lease_expires_at IS NULL OR lease_expires_at < clock_timestamp())
RETURNING lease_token, stop_reason
"""
RENEW = """
UPDATE executions_execution AS e
   SET lease_expires_at = clock_timestamp() + make_interval(secs => %(seconds)s)
  FROM unnest(%(ids)s::bigint[], %(tokens)s::bigint[]) AS held(id, token)
 WHERE e.id = held.id AND e.lease_token = held.token AND e.status = ANY(%(open)s)
RETURNING e.id, e.stop_reason
"""
RELEASE = """
UPDATE executions_execution SET lease_expires_at = clock_timestamp()
 WHERE id = %(id)s AND lease_token = %(token)s AND status = ANY(%(open)s)
"""


class Fenced(AppError):
    """The lease is no longer ours, or we cannot know that it still is: stop at once, touch nothing."""


@dataclass
class Lease:
    """A claimed execution. `valid_until` is monotonic seconds; `wake` is set when something wants attention."""

    execution_id: int
    token: int
    valid_until: float
    stop_reason: str = ""
    wake: threading.Event = field(default_factory=threading.Event)
    is_taken: bool = False

    def check(self) -> None:
        """Raise `Fenced` unless the lease is surely ours now. Call it before touching the container or its files."""
        if self.is_taken or time.monotonic() > self.valid_until:
            raise Fenced(f"execution {self.execution_id}: the lease {self.token} is not ours any more")

    def write(self, **columns: Any) -> None:
        """Update the execution under the token; raises `Fenced` when someone else claimed it, or it has ended."""
        rows = Execution.objects.filter(pk=self.execution_id, lease_token=self.token, status__in=OPEN)
        if not rows.update(**columns):
            self.is_taken = True
            raise Fenced(f"execution {self.execution_id}: the lease {self.token} was taken")

    def release(self) -> None:
        """Let someone else claim at once."""
        with connection.cursor() as cursor:
            cursor.execute(RELEASE, {"id": self.execution_id, "token": self.token, "open": OPEN_STATES})


def claim(execution_id: int, *, owner: str, host: str) -> Lease | None:
    """The lease, or None when the execution has ended, belongs to another host, or somebody's lease still runs."""
    asked = time.monotonic()
    parameters = {
        "id": execution_id,
        "owner": owner,
        "host": host,
        "seconds": settings.LEASE_SECONDS,
        "open": OPEN_STATES,
    }
    fault("claim.before")
    with connection.cursor() as cursor:
        cursor.execute(CLAIM, parameters)
        row = cursor.fetchone()
    if row is None:
        return None
    return Lease(execution_id, int(row[0]), _valid_until(asked), stop_reason=row[1])


class Keeper:
    """Renews all leases of this process from one thread, with one UPDATE, and hears of requested stops by it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: dict[int, Lease] = {}
        self._thread: threading.Thread | None = None

    @contextmanager
    def holding(self, lease: Lease) -> Iterator[Lease]:
        """Keep the lease alive inside the block; leaving it does not release it."""
        with self._lock:
            self._held[lease.execution_id] = lease
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="lease-keeper", daemon=True)
                self._thread.start()
        try:
            yield lease
        finally:
            with self._lock:
                if self._held.get(lease.execution_id) is lease:
                    del self._held[lease.execution_id]

    def _run(self) -> None:
        while True:
            time.sleep(settings.LEASE_RENEW_SECONDS)
            with self._lock:
                held = list(self._held.values())
            if not held:
                continue
            try:
                with released():
                    self.renew(held)
            except Exception as exc:  # the thread's edge: without renewals the leases run out, as they must
                log.warning("leases_not_renewed", count=len(held), error=str(exc))

    def renew(self, held: list[Lease]) -> None:
        """Renew these leases; one that was taken or has ended is marked and woken."""
        asked = time.monotonic()
        parameters = {
            "ids": [lease.execution_id for lease in held],
            "tokens": [lease.token for lease in held],
            "seconds": settings.LEASE_SECONDS,
            "open": OPEN_STATES,
        }
        with connection.cursor() as cursor:
            cursor.execute(RENEW, parameters)
            renewed = dict(cursor.fetchall())
        for lease in held:
            if lease.execution_id in renewed:
                lease.valid_until = _valid_until(asked)
                lease.stop_reason = renewed[lease.execution_id]
            else:
                lease.is_taken = True
            if lease.is_taken or lease.stop_reason:
                lease.wake.set()


def unattended(older_than_seconds: float) -> models.QuerySet[Execution]:
    """Open executions whose lease ran out that long ago, or that nobody claimed for that long."""
    limit = DatabaseClock() - models.Value(timedelta(seconds=older_than_seconds), output_field=models.DurationField())
    never = models.Q(lease_expires_at=None, created_at__lt=limit)
    return Execution.objects.filter(never | models.Q(lease_expires_at__lt=limit), status__in=OPEN)


def hosts_holding() -> set[str]:
    """The hosts whose workers hold leases now."""
    rows = Execution.objects.filter(status__in=OPEN, lease_expires_at__gt=DatabaseClock())
    return set(rows.order_by().values_list("host", flat=True).distinct())


def seconds_since_start(execution_id: int) -> float:
    """How long ago the execution became ready, or was created, by the database's clock."""
    begun = Coalesce("ready_at", "created_at")
    rows = Execution.objects.filter(pk=execution_id).annotate(age=DatabaseClock() - begun)
    return float(rows.values_list("age", flat=True).get().total_seconds())


class DatabaseClock(models.Func):
    """PostgreSQL's clock at this very moment; `Now()` is the start of the statement or transaction."""

    template = "clock_timestamp()"
    output_field = models.DateTimeField()


def _valid_until(asked: float) -> float:
    return asked + float(settings.LEASE_SECONDS - settings.LEASE_MARGIN_SECONDS)


keeper = Keeper()
