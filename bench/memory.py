"""The idle stack: what its processes hold, what they burn, and how long it takes to come up."""

from __future__ import annotations

import os
import time
from collections import defaultdict
from pathlib import Path

from bench.figures import Figure
from bench.installation import Up

SETTLE_SECONDS = 6.0
WATCHED_SECONDS = 20.0
MEGABYTE = 1024.0


def measure(home: Path, up: Up) -> list[Figure]:
    """Resident memory by process, its sum, and the processor time of the idle stack."""
    time.sleep(SETTLE_SECONDS)  # first polls, first heartbeats: not what "idle" means
    names = up.children()
    before = {pid: _ticks(pid) for pid in names}
    time.sleep(WATCHED_SECONDS)
    burnt = {pid: (_ticks(pid) - before[pid]) / os.sysconf("SC_CLK_TCK") / WATCHED_SECONDS * 100 for pid in names}
    held = {pid: memory_of(pid) for pid in names}
    figures = [
        Figure("stack up, warm installation", up.seconds, "s", at_most=15),
        Figure("idle stack, resident (PSS)", sum(pss for _, pss in held.values()), "MB", at_most=700),
        Figure("idle stack, sum of RSS", sum(rss for rss, _ in held.values()), "MB"),
        Figure("idle stack, processor", sum(burnt.values()), "% of a core", at_most=3),
    ]
    for name, pids in _by_name(names).items():
        rss, pss = (sum(held[pid][which] for pid in pids) for which in (0, 1))
        figures.append(Figure(f"  {name}, PSS", pss, "MB", baseline=rss, baseline_name="RSS"))
        figures.append(Figure(f"  {name}, processor", sum(burnt[pid] for pid in pids), "% of a core"))
    return figures


def memory_of(pid: int) -> tuple[float, float]:
    """RSS and PSS in megabytes; PSS shares what several processes have mapped among them, so that sums are true."""
    fields = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, value, *_ = line.split()
        fields[name] = int(value)
    return fields["Rss:"] / MEGABYTE, fields["Pss:"] / MEGABYTE


def _ticks(pid: int) -> int:
    """Processor time so far, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def _by_name(names: dict[int, str]) -> dict[str, list[int]]:
    found = defaultdict(list)
    for pid, name in names.items():
        found[name].append(pid)
    return dict(found)
