"""From step to step: the hop, forty steps in a row, and where the time of a step goes, beside a bare Celery chain."""

from __future__ import annotations

import statistics
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench.chain import bare_workers, run_chain
from bench.figures import Figure, percentile
from bench.installation import Up
from bench.runs import finished_run

HOPS = 40
LINES = 5
"""Runs of the line, each followed by a bare chain of the same length."""
STAGES = (
    ("settled to queued", "previous", "queued"),
    ("queued to prepared", "queued", "prepared"),
    ("prepared to claimed", "prepared", "claimed"),
    ("claimed to ready", "claimed", "ready"),
    ("ready to ended", "ready", "ended"),
    ("ended to settled", "ended", "settled"),
)


def measure(home: Path, up: Up) -> list[Figure]:
    """The hop, the line of steps, and the line's stages."""
    hops: list[float] = []
    lines: list[float] = []
    bare: list[float] = []
    stages: dict[str, list[float]] = {name: [] for name, *_ in STAGES}
    with bare_workers(celery_settings()):
        for _ in range(LINES):
            moments = _moments(finished_run("line").pk)
            hops += _hops(moments)
            lines.append(_ms(moments[0]["queued"], moments[HOPS - 1]["settled"]) / 1000)
            _add_stages(stages, moments)
            bare.append(run_chain(HOPS))
    bare_step = statistics.median(bare) * 1000 / HOPS
    chain = "a step of a bare chain"
    return [
        Figure("hop, p50", percentile(hops, 0.5), "ms", at_most=25, at_most_ratio=2.5, baseline=bare_step,
               baseline_name=chain),
        Figure("hop, p95", percentile(hops, 0.95), "ms", baseline=bare_step, baseline_name=chain),
        Figure(f"{HOPS} steps in a row", statistics.median(lines), "s", at_most=4, baseline=statistics.median(bare),
               baseline_name=f"a bare chain of {HOPS} x 3 tasks"),
        *[Figure(f"  {name}, p50", percentile(values, 0.5), "ms") for name, values in stages.items()],
    ]  # fmt: skip


def measured_hops() -> list[float]:
    """Milliseconds of each hop of one more line."""
    return _hops(_moments(finished_run("line").pk))


def celery_settings() -> dict[str, object]:
    """Djinn's own, so that the baseline differs in nothing but what its tasks do."""
    from django.conf import settings

    names = [name for name in dir(settings) if name.startswith("CELERY_") and "BEAT" not in name]
    return {name.removeprefix("CELERY_").lower(): getattr(settings, name) for name in names}


def _hops(moments: list[dict[str, datetime]]) -> list[float]:
    return [_ms(before["settled"], after["claimed"]) for before, after in pairwise(moments)]


def _moments(run_id: int) -> list[dict[str, datetime]]:
    """When each step run passed its stages, by the database's clock."""
    from djinn.runs.models import StepRun

    names = ("queued", "prepared", "claimed", "ready", "ended", "settled")
    rows = (
        StepRun.objects.filter(run=run_id)
        .order_by("number")
        .values_list(
            "queued_at", "execution__created_at", "started_at", "execution__ready_at", "execution__ended_at", "ended_at"
        )
    )
    return [dict(zip(names, row, strict=True)) for row in rows]


def _add_stages(stages: dict[str, list[float]], moments: list[dict[str, Any]]) -> None:
    for before, after in pairwise(moments):
        known = {"previous": before["settled"], **after}
        for name, begin, end in STAGES:
            stages[name].append(_ms(known[begin], known[end]))


def _ms(begin: datetime, end: datetime) -> float:
    return (end - begin).total_seconds() * 1000
