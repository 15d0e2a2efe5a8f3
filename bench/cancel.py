"""From an accepted cancel to the end of the container, with a living worker and with one that was just killed."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bench.deaths import Deaths, kill_agents_worker
from bench.figures import Figure, percentile
from bench.installation import Up
from bench.runs import held_runs, wait_for

if TYPE_CHECKING:
    from djinn.runs.models import Run

LIVING = (10, 10, 10)
DEAD = (5, 5, 5, 5, 5, 5)
"""How many are cancelled after each kill."""
PAUSE_SECONDS = 0.4


def measure(home: Path, up: Up) -> list[Figure]:
    """Cancels at any moment between two renewals of the leases."""
    moment = random.Random(sum(LIVING))
    living: list[float] = []
    dead: list[float] = []
    with Deaths() as deaths:
        for count in LIVING:
            living += _cancelled(held_runs(count), deaths, [moment.uniform(0, PAUSE_SECONDS) for _ in range(count)])
        for count in DEAD:
            runs = held_runs(count)
            time.sleep(moment.uniform(0, 2))
            kill_agents_worker(up)
            dead += _cancelled(runs, deaths, [0.0] * count)
    return [
        figure
        for name, seconds in (("", living), (", its worker was killed", dead))
        for figure in (
            Figure(f"cancel to container gone{name}, p50", percentile(seconds, 0.5), "s"),
            Figure(f"cancel to container gone{name}, p99", percentile(seconds, 0.99), "s", at_most=5),
        )
    ]


def _cancelled(runs: Sequence[Run], deaths: Deaths, pauses: Sequence[float]) -> list[float]:
    """Cancel them one by one; seconds from each call to the end of its container."""
    from djinn.runs.models import StepRun
    from djinn.runs.services import cancel_run

    executions = dict(StepRun.objects.filter(run__in=[run.pk for run in runs]).values_list("run", "execution"))
    asked = []
    for run, pause in zip(runs, pauses, strict=True):
        asked.append(time.time())
        cancel_run(run=run)
        time.sleep(pause)
    ended = deaths.moments(executions[run.pk] for run in runs)
    for run in runs:
        wait_for(run)
    return [after - before for before, after in zip(asked, ended, strict=True)]
