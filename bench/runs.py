"""Starting runs and waiting for them, over the database as any other process does."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from bench.installation import BenchFailed

if TYPE_CHECKING:
    from djinn.runs.models import Run

RUN_SECONDS = 120.0


def finished_run(pipeline: str) -> Run:
    """A run of the pipeline that has succeeded; raises `BenchFailed` when it does anything else."""
    from djinn.runs.services import start_run

    run = start_run(pipeline_id=pipeline, inputs={})
    wait_for(run)
    if run.status != "succeeded":
        raise BenchFailed(f"run {run.pk} of {pipeline} {run.status}: {run.reason} {run.message}")
    return run


def held_runs(count: int) -> list[Run]:
    """So many runs whose only step works on until it is stopped, each ready in its container."""
    from djinn.executions.models import Execution
    from djinn.runs.services import start_run

    runs = [start_run(pipeline_id="holding", inputs={}) for _ in range(count)]
    ready = Execution.objects.filter(step_run__run__in=[run.pk for run in runs], ready_at__isnull=False)
    wait_until(lambda: ready.count() == count, f"{count} steps were to begin")
    return runs


def cancel_all(runs: Sequence[Run]) -> None:
    """Cancel them and wait until they have ended."""
    from djinn.runs.services import cancel_run

    for run in runs:
        cancel_run(run=run)
    for run in runs:
        wait_for(run)


def wait_until(is_so: Callable[[], bool], wanted: str, *, seconds: float = RUN_SECONDS) -> None:
    """Wait until something is so; raises `BenchFailed` with what was wanted when it does not become so."""
    deadline = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > deadline:
            raise BenchFailed(f"{wanted}, in {seconds:.0f} s")
        time.sleep(0.1)


def wait_for(run: Run) -> None:
    """Wait until the run has ended, looking seldom enough not to be part of what is measured."""
    deadline = time.monotonic() + RUN_SECONDS
    while not run.is_final:
        if time.monotonic() > deadline:
            raise BenchFailed(f"run {run.pk} of {run.pipeline} did not end in {RUN_SECONDS:.0f} s")
        time.sleep(0.1)
        run.refresh_from_db(fields=["status", "reason", "message", "ended_at"])
