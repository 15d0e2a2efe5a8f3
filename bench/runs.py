"""Starting runs and waiting for them, over the database as any other process does."""

from __future__ import annotations

import time
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


def wait_for(run: Run) -> None:
    """Wait until the run has ended, looking seldom enough not to be part of what is measured."""
    deadline = time.monotonic() + RUN_SECONDS
    while not run.is_final:
        if time.monotonic() > deadline:
            raise BenchFailed(f"run {run.pk} of {run.pipeline} did not end in {RUN_SECONDS:.0f} s")
        time.sleep(0.1)
        run.refresh_from_db(fields=["status", "reason", "message", "ended_at"])
