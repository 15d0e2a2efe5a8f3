"""What an agents worker holds in memory while many containers do nothing."""

from __future__ import annotations

import time
from pathlib import Path

from bench.figures import Figure
from bench.installation import Up
from bench.memory import memory_of
from bench.runs import cancel_all, finished_run, held_runs

CONTAINERS = 50
SETTLE_SECONDS = 10.0
"""After so long without a record the journals are looked at as seldom as they ever are."""


def measure(home: Path, up: Up) -> list[Figure]:
    """The worker's PSS without a container, once it has run one, and with fifty."""
    finished_run("single")
    time.sleep(SETTLE_SECONDS)
    _, before = memory_of(up.agents_worker())
    runs = held_runs(CONTAINERS)
    time.sleep(SETTLE_SECONDS)
    _, after = memory_of(up.agents_worker())
    cancel_all(runs)
    return [
        Figure(f"agents worker with {CONTAINERS} idle containers (PSS)", after, "MB", at_most=150, baseline=before,
               baseline_name="without a container"),
        Figure("  more for each container", (after - before) / CONTAINERS, "MB", at_most=2),
    ]  # fmt: skip
