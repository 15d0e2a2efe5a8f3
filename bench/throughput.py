"""Many short runs: latency at a steady rate, and as the rate grows, beside bare Celery chains of that length."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from bench.chain import bare_workers, ended_chains, send_chain
from bench.figures import Figure, percentile
from bench.hops import celery_settings
from bench.installation import BenchFailed, Up
from bench.runs import finished_run, wait_until

RUNS = 1000
STEADY = 4.0
"""Runs a second; less when the machine does not keep up with that."""
RATES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
CURVE_SECONDS = 10.0
KEPT_UP = 0.8
"""A curve ends with the rate of which less than this share was finished while it was offered."""
STEPS = 2
STARTERS = 4
DRAIN_SECONDS = 240.0


@dataclass(frozen=True)
class Load:
    """What became of the runs, or chains, that were started at a rate: seconds of each, and how many ended a second
    between the twentieth part that ended first and the one that ended last."""

    seconds: list[float]
    ended_per_second: float


def measure(home: Path, up: Up) -> list[Figure]:
    """Bare chains and runs by turns, at growing rates, and then the steady one."""
    figures: list[Figure] = []
    steady_rate = RATES[0]
    finished_run("single")
    with bare_workers(celery_settings()):
        for rate in RATES:
            bare, load = _bare(rate, int(rate * CURVE_SECONDS)), _runs(rate, int(rate * CURVE_SECONDS))
            figures += _figures(f"  at {rate:.0f} runs/s", load, bare)
            if load.ended_per_second < KEPT_UP * rate:
                break
            steady_rate = min(rate, STEADY)
        steady, bare = _runs(steady_rate, RUNS), _bare(steady_rate, RUNS // 10)
    return [*_figures(f"{RUNS:,} runs of {STEPS} steps at {steady_rate:.0f}/s", steady, bare), *figures]


def _figures(name: str, load: Load, bare: Load) -> list[Figure]:
    chain = f"a bare chain of {STEPS} x 3 tasks"
    return [
        *(
            Figure(f"{name}, p{share * 100:.0f}", percentile(load.seconds, share) * 1000, "ms",
                   baseline=percentile(bare.seconds, share) * 1000, baseline_name=chain)
            for share in (0.5, 0.95)
        ),
        Figure(f"{name}, finished", load.ended_per_second, "/s", baseline=bare.ended_per_second, baseline_name=chain),
    ]  # fmt: skip


def _runs(rate: float, count: int) -> Load:
    """Runs from their start's transaction to their end, by the database's clock."""
    from djinn.runs.models import Run

    last = Run.objects.order_by("-pk").values_list("pk", flat=True)[0]
    _offer(rate, count, lambda number: _start_run())
    ended = Run.objects.filter(pk__gt=last, ended_at__isnull=False)
    wait_until(lambda: ended.count() == count, f"{count} runs were to end", seconds=DRAIN_SECONDS)
    if ended.exclude(status="succeeded").exists():
        raise BenchFailed("a run of the throughput did not succeed")
    rows = ended.values_list("created_at", "ended_at")
    return _load([(begin.timestamp(), end.timestamp()) for begin, end in rows if end is not None])


def _start_run() -> None:
    from djinn.core.database import released
    from djinn.runs.services import start_run

    with released():
        start_run(pipeline_id="single", inputs={})


def _bare(rate: float, count: int) -> Load:
    """Bare chains from their sending to their last task."""
    sent: dict[int, float] = {}

    def send(number: int) -> None:
        sent[number] = time.time()
        send_chain(STEPS, number=number)

    _offer(rate, count, send)
    ended = ended_chains(count, timeout_seconds=DRAIN_SECONDS)
    return _load([(sent[number], ended[number]) for number in sent])


def _offer(rate: float, count: int, start: Callable[[int], None]) -> None:
    """Start so many at the rate, whether earlier ones have ended or not."""
    began = time.monotonic()
    with ThreadPoolExecutor(STARTERS) as starters:
        started = []
        for number in range(count):
            time.sleep(max(0.0, began + number / rate - time.monotonic()))
            started.append(starters.submit(start, number))
    for each in started:
        each.result()


def _load(spans: list[tuple[float, float]]) -> Load:
    ends = [end for _, end in spans]
    first, last = percentile(ends, 0.05), percentile(ends, 0.95)
    return Load([end - begin for begin, end in spans], 0.9 * len(spans) / (last - first))
