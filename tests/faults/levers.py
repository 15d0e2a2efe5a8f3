"""The levers: each does one fault to a stage, now, and says when and to which runs.

A lever returns None when there was nothing to hurt; what has to end later is given to `later`.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psycopg
import redis

from djinn.core.faults import FOLDER, POINTS, VARIABLE
from djinn.core.installation import servers
from tests.faults.messages import ring_doubled, ring_stale
from tests.faults.plan import Fault
from tests.faults.stage import DJINN, LEASE_SECONDS, Stage
from tests.faults.verdict import Excuses
from tests.stack.live import wait_for

FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"), None) if shutil.which("faketime") else None
"""In the folder of the machine's architecture; None where the program is not installed."""
CLOCK_HOURS = 2
REDEPLOY_SECONDS = 20.0
CONNECTION_SECONDS = 2.0
REDIS_BYTES = 256 * 1024**2

T = TypeVar("T")
Later = Callable[[float, Callable[[], object]], None]
Runs = frozenset[int] | None
"""Runs that a fault was done to; None for all that were open."""


@dataclass(frozen=True)
class Hurt:
    """A fault that was done. `intent` is the number of the run that it started, when it is one that starts a run."""

    runs: Runs = None
    intent: int | None = None


Lever = Callable[["Levers", Fault], Hurt | None]


class Levers:
    """Hurts one stage. Not thread-safe: one loop pulls them all, and runs what was left for later."""

    def __init__(self, stage: Stage, *, later: Later, start: Callable[[str], int], seed: int) -> None:
        self.stage = stage
        self.later = later
        self.start = start
        """Starts a run of the pipeline as soon as it can; the number of the intent."""
        self.problems: list[tuple[str, str]] = []
        """What a lever itself saw that must not be: subject and text."""
        self.excuses = Excuses()
        self._chance = random.Random(f"levers of {seed}")

    def pull(self, fault: Fault) -> Hurt | None:
        """Do the fault; None when there was nothing that it could be done to."""
        return LEVERS[fault.kind](self, fault)

    # --- processes ----------------------------------------------------------------------------------------------------
    def kill(self, fault: Fault, *names: str) -> Hurt | None:
        found = [pid for name in names for pid in self.stage.pids(name)]
        return Hurt() if sum(_send(pid, signal.SIGKILL) for pid in found) else None

    def kill_one(self, fault: Fault, name: str) -> Hurt | None:
        found = self.stage.pids(name)
        return Hurt() if found and _send(_chosen(found, fault), signal.SIGKILL) else None

    def kill_several(self, fault: Fault) -> Hurt | None:
        return self.kill(fault, *random.Random(fault.draw).sample(DJINN, 2 + int(fault.draw * 2)))

    def cut_power(self, fault: Fault) -> Hurt:
        self.stage.power_cut()
        url = self.stage.installation.database_url
        wait_for(lambda: servers.postgres_answers(url), seconds=60, why="PostgreSQL")
        self.stage.up()
        return Hurt()

    def suspend(self, fault: Fault, name: str) -> Hurt | None:
        """SIGSTOP for longer than the lease, then SIGCONT: it must find that it is fenced."""
        found = self.stage.pids(name)
        if not found or not _send(pid := _chosen(found, fault), signal.SIGSTOP):
            return None
        self.later(fault.seconds * LEASE_SECONDS, lambda: _send(pid, signal.SIGCONT))
        return Hurt()

    def redeploy(self, fault: Fault, name: str) -> Hurt | None:
        """SIGTERM: it must go soon, and what it held runs on as the same process."""
        found = self.stage.pids(name)
        if not found:
            return None
        pid, before, hurt_until = _chosen(found, fault), self._containers(), len(self.excuses.losses)
        if not _send(pid, signal.SIGTERM):
            return None

        def look() -> None:
            if pid in self.stage.pids(name) and not _is_suspended(pid):
                self.problems.append(("stack", f"{name} was still there {REDEPLOY_SECONDS:.0f} s after SIGTERM"))
            if len(self.excuses.losses) == hurt_until:
                self._compare(before)

        self.later(REDEPLOY_SECONDS, look)
        return Hurt()

    def crash_point(self, fault: Fault) -> Hurt | None:
        """A further worker that dies of one crash point, at its first hit."""
        name = _chosen(sorted(_WORKER_POINTS), fault)
        counted = self.stage.installation.home / FOLDER / name
        hit = 1 + (len(counted.read_text().splitlines()) if counted.is_file() else 0)
        worker = self.stage.start_worker(_WORKER_POINTS[name], {VARIABLE: f"{name}=kill9@{hit}"})
        self._end_later(fault, worker)
        return Hurt()

    def turn_clock(self, fault: Fault, hours: int) -> Hurt:
        """A further worker of each kind whose clock is hours off."""
        clock = {"LD_PRELOAD": str(FAKETIME), "FAKETIME": f"{hours:+d}h", "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                 "DONT_FAKE_MONOTONIC": "1"}  # fmt: skip
        for name in ("control", "agents"):
            self._end_later(fault, self.stage.start_worker(name, clock))
        return Hurt()

    def _end_later(self, fault: Fault, worker: subprocess.Popen[bytes]) -> None:
        def end() -> None:
            worker.kill()
            worker.wait(20)
            self.stage.reap()

        self.later(fault.seconds, end)

    # --- Redis --------------------------------------------------------------------------------------------------------
    def redis(self, fault: Fault, *command: str) -> Hurt | None:
        url = self.stage.installation.redis_url
        try:
            with redis.Redis.from_url(url, socket_timeout=1, socket_connect_timeout=1) as client:
                client.execute_command(*command)
        except redis.RedisError:
            return None  # it is down already
        return Hurt()

    def hang_redis(self, fault: Fault) -> Hurt | None:
        found = self.stage.pids("redis")
        if not found or not _send(found[0], signal.SIGSTOP):
            return None
        self.later(fault.seconds, lambda: _send(found[0], signal.SIGCONT))
        return Hurt()

    def fill_redis(self, fault: Fault) -> Hurt | None:
        hurt = self.redis(fault, "CONFIG", "SET", "maxmemory", "1")
        if hurt:
            self.later(fault.seconds, lambda: self.redis(fault, "CONFIG", "SET", "maxmemory", str(REDIS_BYTES)))
        return hurt

    # --- PostgreSQL ---------------------------------------------------------------------------------------------------
    def crash_postgres(self, fault: Fault) -> Hurt | None:
        """SIGQUIT to the postmaster: an immediate shutdown, which recovers from its log at the next start."""
        found = self.stage.pids("postgres")
        return Hurt() if found and _send(found[0], signal.SIGQUIT) else None

    def end_backends(self, fault: Fault) -> Hurt | None:
        query = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
        url = self.stage.installation.database_url
        with contextlib.suppress(psycopg.OperationalError), psycopg.connect(url, connect_timeout=2) as connection:
            connection.execute(f"{query} AND datname = 'djinn'")
            return Hurt()
        return None

    def lose_commit(self, fault: Fault) -> Hurt:
        self.stage.proxy.lose_next("commit")
        return Hurt()

    def lose_write(self, fault: Fault) -> Hurt:
        self.stage.proxy.lose_next("write")
        return Hurt()

    def slow_postgres(self, fault: Fault) -> Hurt:
        self.stage.proxy.delay(0.3)
        self.later(fault.seconds, lambda: self.stage.proxy.delay(0))
        return Hurt()

    def silence_postgres(self, fault: Fault) -> Hurt:
        self.stage.proxy.blackhole(on=True)
        self.later(fault.seconds, lambda: self.stage.proxy.blackhole(on=False))
        return Hurt()

    def refuse_postgres(self, fault: Fault) -> Hurt:
        self.stage.proxy.refuse(on=True)
        self.stage.proxy.reset()
        self.later(fault.seconds, lambda: self.stage.proxy.refuse(on=False))
        return Hurt()

    def reset_postgres(self, fault: Fault) -> Hurt:
        self.stage.proxy.reset()
        return Hurt()

    # --- containers ---------------------------------------------------------------------------------------------------
    def hurt_engine(self, fault: Fault, how: str, *, keeps_containers: bool) -> Hurt | None:
        """Have the engine away for some seconds. It comes back with or without --live-restore."""
        engine = self.stage.engine
        if engine is None or engine.is_away:
            return None
        {"kill": engine.kill, "stop": engine.stop, "suspend": engine.suspend}[how]()
        self.excuses.losses.append(time.time())

        def back() -> None:
            if how == "suspend":
                engine.resume()
            else:
                engine.spawn(keeps_containers=keeps_containers)
            self._await_engine()

        self.later(fault.seconds, back)
        return Hurt()

    def _await_engine(self) -> None:
        """Have the engine looked at until it answers; one that did not come up is started again."""
        engine = self.stage.engine
        if engine is not None and not engine.answers():
            if engine.has_died():
                engine.kill()
                engine.spawn()
            self.later(0.5, self._await_engine)

    def hurt_container(self, fault: Fault, *command: str) -> Hurt | None:
        """What somebody does to a running container by hand."""
        running = sorted(self._containers())
        if not running:
            return None
        name = _chosen(running, fault)
        if self._docker(*command, name) is None:
            return None
        self.excuses.losses.append(time.time())
        execution = int(name.rpartition("-")[2])
        rows = self._rows("SELECT run_id FROM runs_steprun WHERE execution_id = %s", execution)
        return Hurt(frozenset(row["run_id"] for row in rows) if rows else None)

    def _containers(self) -> dict[str, tuple[str, str]]:
        """Process id and start of each running container, by name; none while the engine is away."""
        label = f"label=djinn.installation={self.stage.installation_name}"
        names = (self._docker("ps", "--filter", label, "--format", "{{.Names}}") or "").split()
        if not names:
            return {}
        told = self._docker("inspect", "--format", "{{.Name}} {{.State.Pid}} {{.State.StartedAt}}", *names) or ""
        lines = (line.split() for line in told.splitlines())
        return {name.lstrip("/"): (pid, began) for name, pid, began in lines if pid != "0"}

    def _compare(self, before: dict[str, tuple[str, str]]) -> None:
        """A container that still runs must be the same process as before."""
        for name, present in self._containers().items():
            if name in before and before[name] != present:
                execution = name.rpartition("-")[2]
                text = f"its container was {before[name]} before a redeploy and {present} after it"
                self.problems.append((f"execution {execution}", text))

    def _docker(self, *arguments: str) -> str | None:
        """What docker says; None when its engine is away or refuses."""
        engine = self.stage.engine
        if engine is not None and engine.is_away:
            return None
        host = ("--host", engine.url) if engine else ()
        try:
            done = subprocess.run(["docker", *host, *arguments], capture_output=True, text=True, timeout=5, check=False)
        except subprocess.TimeoutExpired:
            return None
        return done.stdout if done.returncode == 0 else None

    # --- the rest -----------------------------------------------------------------------------------------------------
    def double_messages(self, fault: Fault) -> Hurt | None:
        return Hurt() if ring_doubled(self.stage, self._rows, self._chance) else None

    def stale_messages(self, fault: Fault) -> Hurt | None:
        return Hurt() if ring_stale(self.stage, self._rows, self._chance) else None

    def fill_disk(self, fault: Fault) -> Hurt:
        began = time.time()
        self.stage.resize_disk(is_full=True)

        def free() -> None:
            self.stage.resize_disk(is_full=False)
            self.excuses.disk_full.append((began, time.time()))

        self.later(fault.seconds, free)
        return Hurt()

    def cancel(self, fault: Fault) -> Hurt | None:
        """Cancel some open run; whether it was heard is for the row to tell."""
        rows = self._rows("SELECT id FROM runs_run WHERE ended_at IS NULL AND cancel_requested_at IS NULL ORDER BY id")
        if not rows:
            return None
        run = _chosen([row["id"] for row in rows], fault)
        self.excuses.cancelled.add(run)
        with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
            status, _ = self.stage.call("POST", f"runs/{run}/cancel/", seconds=CONNECTION_SECONDS)
            if status == 202:
                return Hurt(frozenset({run}))
        return None

    def starve(self, fault: Fault) -> Hurt:
        """A run whose script needs more memory than it may have."""
        return Hurt(runs=frozenset(), intent=self.start("hungry"))

    def _rows(self, query: str, *values: object) -> list[dict[str, int]]:
        """What the database answers; nothing while it is away."""
        try:
            return self.stage.rows(query, *values)
        except psycopg.OperationalError:
            return []


def _send(pid: int, number: signal.Signals) -> bool:
    """Whether there was such a process."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def _chosen(there: list[T], fault: Fault) -> T:
    return there[int(fault.draw * len(there)) % len(there)]


def _is_suspended(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().rpartition(")")[2].split()[0] == "T"
    except OSError:
        return False


def _worker_of(point: str) -> str | None:
    """Which worker comes to a crash point; None when another process does."""
    area = point.partition(".")[0]
    if area in {"start_run", "cancel", "sse", "gateway"}:
        return None
    agents = {"claim", "workspace", "brief", "container", "relay", "conclude", "stop", "unwanted", "collect"}
    return "agents" if area in agents else "control"


_WORKER_POINTS = {point: worker for point in POINTS if (worker := _worker_of(point))}

LEVERS: dict[str, Lever] = {
    **{f"{name}_killed": lambda on, fault, name=name: on.kill_one(fault, name) for name in (*DJINN, "redis")},
    "several_killed": Levers.kill_several,
    "all_killed": lambda on, fault: on.kill(fault, *DJINN, "redis", "postgres"),
    "power_cut": Levers.cut_power,
    "agents_redeployed": lambda on, fault: on.redeploy(fault, "agents"),
    "control_redeployed": lambda on, fault: on.redeploy(fault, "control"),
    "agents_suspended": lambda on, fault: on.suspend(fault, "agents"),
    "control_suspended": lambda on, fault: on.suspend(fault, "control"),
    "redis_flushed": lambda on, fault: on.redis(fault, "FLUSHALL"),
    "redis_hung": Levers.hang_redis,
    "redis_clients_cut": lambda on, fault: on.redis(fault, "CLIENT", "KILL", "TYPE", "normal"),
    "redis_subscribers_cut": lambda on, fault: on.redis(fault, "CLIENT", "KILL", "TYPE", "pubsub"),
    "redis_full": Levers.fill_redis,
    "postgres_crashed": Levers.crash_postgres,
    "postgres_backends_ended": Levers.end_backends,
    "commit_answer_lost": Levers.lose_commit,
    "write_answer_lost": Levers.lose_write,
    "postgres_slow": Levers.slow_postgres,
    "postgres_silent": Levers.silence_postgres,
    "postgres_connections_reset": Levers.reset_postgres,
    "postgres_refuses": Levers.refuse_postgres,
    "engine_killed": lambda on, fault: on.hurt_engine(fault, "kill", keeps_containers=True),
    "engine_killed_with_containers": lambda on, fault: on.hurt_engine(fault, "kill", keeps_containers=False),
    "engine_stopped": lambda on, fault: on.hurt_engine(fault, "stop", keeps_containers=fault.draw < 0.5),
    "engine_suspended": lambda on, fault: on.hurt_engine(fault, "suspend", keeps_containers=True),
    "engine_away_while_containers_exit": lambda on, fault: on.hurt_engine(fault, "kill", keeps_containers=True),
    "container_killed": lambda on, fault: on.hurt_container(fault, "kill"),
    "container_removed": lambda on, fault: on.hurt_container(fault, "rm", "--force"),
    "container_out_of_memory": Levers.starve,
    "messages_doubled": Levers.double_messages,
    "messages_stale": Levers.stale_messages,
    "clock_ahead": lambda on, fault: on.turn_clock(fault, CLOCK_HOURS),
    "clock_behind": lambda on, fault: on.turn_clock(fault, -CLOCK_HOURS),
    "disk_full": Levers.fill_disk,
    "run_cancelled": Levers.cancel,
    "crash_point": Levers.crash_point,
}
"""The lever of each kind of the plan."""
