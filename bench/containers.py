"""A step in a container beside a bare `docker run`, where its time goes, and the runtime inside."""

from __future__ import annotations

import json
import re
import statistics
import subprocess
import time
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.figures import Figure, percentile
from bench.installation import BenchFailed, Up, descendants
from bench.memory import memory_of
from bench.runs import finished_run, wait_for

if TYPE_CHECKING:
    from djinn.runs.models import StepRun

ROUNDS = 10
COMMAND_SECONDS = 60
LOOKED_SECONDS = 30.0
STAGES = ("queued", "prepared", "claimed", "created", "started", "ready", "finished", "exited", "ended", "settled")


def measure(home: Path, up: Up) -> list[Figure]:
    """Steps and bare containers by turns, so that a busy machine slows both."""
    from django.conf import settings

    image = settings.DEFAULT_IMAGE
    bare: dict[str, list[float]] = {"true": [], "bash -c true": []}
    moments: dict[str, list[dict[str, float]]] = {"FIRST": [], "SECOND": []}
    finished_run("single")  # the engine's and the workers' caches are warm for both
    for _ in range(ROUNDS):
        bare["true"].append(_docker_run(image, "true"))
        for step_run in finished_run("single").step_runs.select_related("execution"):
            moments[step_run.step].append(_moments(step_run))
        bare["bash -c true"].append(_docker_run(image, "bash", "-c", "true"))
    seconds = {step: [m["settled"] - m["queued"] for m in rows] for step, rows in moments.items()}
    return [*_steps(seconds, bare), *_stages(moments["SECOND"]), *_runtime(moments)]


def _steps(seconds: dict[str, list[float]], bare: dict[str, list[float]]) -> list[Figure]:
    baseline = statistics.median(bare["true"])
    shell = statistics.median(bare["bash -c true"])
    later, first = statistics.median(seconds["SECOND"]), statistics.median(seconds["FIRST"])
    return [
        Figure("container step", later, "s", at_most_ratio=1.3, baseline=baseline, baseline_name="docker run ... true"),
        Figure(
            "container step, bash",
            later,
            "s",
            at_most_ratio=1.3,
            baseline=shell,
            baseline_name="docker run ... bash -c true",
        ),
        Figure(
            "container step, the first of its run", first, "s", baseline=baseline, baseline_name="docker run ... true"
        ),
    ]


def _stages(rows: list[dict[str, float]]) -> list[Figure]:
    """Where the time of a step goes, in the order in which it passes."""
    figures = []
    for begin, end in pairwise(STAGES):
        values = [(row[end] - row[begin]) * 1000 for row in rows]
        figures.append(Figure(f"  {begin} to {end}, p50", percentile(values, 0.5), "ms"))
    return figures


def _runtime(moments: dict[str, list[dict[str, float]]]) -> list[Figure]:
    ready = [row["ready"] - row["started"] for rows in moments.values() for row in rows]
    rss, pss = _runtime_memory()
    return [
        Figure("runtime ready after the container's start", statistics.median(ready), "s", at_most=0.2),
        Figure("runtime in the container, resident", rss, "MB", at_most=40),
        Figure("  its PSS", pss, "MB"),
    ]


def _docker_run(image: str, *command: str) -> float:
    """Seconds of one `docker run --rm`."""
    options = ("--rm", "--network", "none", "--init", "--entrypoint", command[0])
    started = time.monotonic()
    subprocess.run(["docker", "run", *options, image, *command[1:]], check=True, timeout=COMMAND_SECONDS)
    return time.monotonic() - started


def _moments(step_run: StepRun) -> dict[str, float]:
    """When the step passed its stages, in seconds since the epoch; all by this machine's clock."""
    execution = step_run.execution
    if execution is None:
        raise BenchFailed(f"{step_run} has no execution")
    engine = _container(execution.key)
    records = _record_times(execution)
    rows = {
        "queued": step_run.queued_at,
        "prepared": execution.created_at,
        "claimed": step_run.started_at,
        "ended": execution.ended_at,
        "settled": step_run.ended_at,
    }
    return {name: moment.timestamp() for name, moment in rows.items() if moment is not None} | {
        "created": _seconds(engine["Created"]),
        "started": _seconds(engine["State"]["StartedAt"]),
        "exited": _seconds(engine["State"]["FinishedAt"]),
        **records,
    }


def _record_times(execution: Any) -> dict[str, float]:
    from djinn.executions.places import execution_directory
    from runtime_image.djinn_runtime.protocol import JOURNAL_NAME

    lines = (execution_directory(execution) / JOURNAL_NAME).read_bytes().splitlines()
    records = [json.loads(line) for line in lines]
    return {record["type"]: record["t"] / 1000 for record in records if record["type"] in {"ready", "finished"}}


def _container(key: str) -> dict[str, Any]:
    from django.conf import settings

    name = f"djinn-{settings.INSTALLATION_NAME}-{key}"
    result = subprocess.run(["docker", "inspect", name], capture_output=True, check=True, timeout=COMMAND_SECONDS)
    found: list[dict[str, Any]] = json.loads(result.stdout)
    return found[0]


def _seconds(text: str) -> float:
    """The engine's time with its nanoseconds cut to microseconds."""
    return datetime.fromisoformat(re.sub(r"\.(\d{6})\d*Z$", r".\1+00:00", text)).timestamp()


def _runtime_memory() -> tuple[float, float]:
    """RSS and PSS of the runtime's own processes while its step rests."""
    from djinn.runs.services import start_run

    run = start_run(pipeline_id="resting", inputs={})
    try:
        held = [memory_of(pid) for pid in _runtime_processes(run)]
    finally:
        wait_for(run)
    return sum(rss for rss, _ in held), sum(pss for _, pss in held)


def _runtime_processes(run: Any) -> list[int]:
    """The processes of the run's container that are the runtime's, once its script runs."""
    deadline = time.monotonic() + LOOKED_SECONDS
    while time.monotonic() < deadline:
        row = run.step_runs.select_related("execution").first()
        if row is not None and row.execution is not None and row.execution.ready_at is not None:
            root = _container(row.execution.key)["State"]["Pid"]
            found = {pid: _words(pid) for pid in descendants(root)}
            if any("sleep" in words for words in found.values()):
                return [pid for pid, words in found.items() if words.startswith("python3")]
        time.sleep(0.05)
    raise BenchFailed("the resting step did not begin")


def _words(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    except FileNotFoundError:
        return ""
