"""From the SIGKILL of an agents worker to the next claim of each execution that it held."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from bench.deaths import kill_agents_worker
from bench.figures import Figure, percentile
from bench.installation import Up
from bench.runs import cancel_all, held_runs, wait_until

if TYPE_CHECKING:
    from djinn.runs.models import Run

KILLS = 20
HELD = 5
"""Executions that each killed worker held."""


def measure(home: Path, up: Up) -> list[Figure]:
    """Kills at any moment between two renewals of the leases and between two sweeps."""
    moment = random.Random(KILLS)
    runs = held_runs(HELD)
    seconds: list[float] = []
    for _ in range(KILLS):
        time.sleep(moment.uniform(0, 2))
        seconds += _adopted(runs, up)
    cancel_all(runs)
    lease = _lease_seconds()
    name = "the lease that has to run out"
    return [
        Figure(f"adoption, {KILLS} kills x {HELD}, p50", percentile(seconds, 0.5), "s", baseline=lease,
               baseline_name=name),
        Figure("adoption, p99", percentile(seconds, 0.99), "s", at_most=10, baseline=lease, baseline_name=name),
    ]  # fmt: skip


def _adopted(runs: Sequence[Run], up: Up) -> list[float]:
    """Seconds from the kill to the claim of each, by the database's clock."""
    from djinn.executions.lease import DatabaseClock
    from djinn.runs.models import Run

    killed: datetime = Run.objects.filter(pk=runs[0].pk).values_list(DatabaseClock(), flat=True).get()
    kill_agents_worker(up)
    wait_until(lambda: len(_claims(runs, killed)) == len(runs), "the executions were to be adopted")
    return [(at - killed).total_seconds() for at in _claims(runs, killed)]


def _claims(runs: Sequence[Run], after: datetime) -> list[datetime]:
    """When each was first claimed after that moment, as far as it was."""
    from django.db.models import Min

    from djinn.events.models import Event

    rows = Event.objects.filter(stream__name__in=[run.stream for run in runs], type="step_adopted", at__gt=after)
    return list(rows.values("stream").annotate(first=Min("at")).values_list("first", flat=True))


def _lease_seconds() -> float:
    from django.conf import settings

    return float(settings.LEASE_SECONDS)
