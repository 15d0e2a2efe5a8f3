"""A storm: faults of a plan over a real stack that works, then quiet, then the checker."""

from __future__ import annotations

import heapq
import itertools
import time
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

import psycopg

from tests.faults.checker import check
from tests.faults.engine_lever import is_possible
from tests.faults.levers import FAKETIME, Hurt, Levers
from tests.faults.load import Load
from tests.faults.plan import KINDS, Fault, faults, pipelines
from tests.faults.seen import Violation
from tests.faults.stage import Stage
from tests.faults.table import Injection, Row, rows, run_of
from tests.faults.verdict import wrong_intents, wrong_outcomes
from tests.stack.live import wait_for

QUIET_SECONDS = 240.0
REST_SECONDS = 30.0

ENGINES = {name for name, kind in KINDS.items() if kind.needs == "engine"}
PATIENT = ENGINES | {"container_killed", "container_removed", "run_cancelled"}
"""Kinds that wait for a victim when there is none."""
TRY_SECONDS = 0.4

Say = Callable[[str], None]


@dataclass(frozen=True)
class Length:
    """How long a storm lasts: until each of these is reached; None is no condition."""

    injected: int | None = None
    steps: int | None = None
    seconds: float | None = None

    def is_reached(self, *, injected: int, steps: int, seconds: float) -> bool:
        pairs = ((self.injected, injected), (self.steps, steps), (self.seconds, seconds))
        return all(wanted is None or there >= wanted for wanted, there in pairs)


@dataclass
class Report:
    """What a storm has shown."""

    lines: list[Row]
    violations: list[Violation]
    skipped: dict[str, str]
    runs: int
    steps: int
    seconds: float
    notes: list[str] = field(default_factory=list)


def skipped_kinds(*, has_engine: bool) -> dict[str, str]:
    """The kinds that cannot be done, and why."""
    why = {}
    if not has_engine:
        why["engine"] = "the storm uses the machine's own Docker engine" if is_possible() else "needs root and dockerd"
    if FAKETIME is None:
        why["clock"] = "libfaketime is not installed (Debian: apt-get install faketime)"
    return {name: why[kind.needs] for name, kind in KINDS.items() if kind.needs in why}


@dataclass(frozen=True)
class Settings:
    """What a storm is like: the plan's seed, its length, and how many runs it keeps open.

    `kinds` None is every kind that can be done here; `calmer` makes each pause so many times longer.
    """

    seed: int
    length: Length
    width: int = 4
    kinds: Collection[str] | None = None
    calmer: float = 1.0


class Storm:
    """One storm over one stage, which is up and has its pipelines."""

    def __init__(self, stage: Stage, settings: Settings, *, say: Say) -> None:
        self._stage, self._settings, self._say = stage, settings, say
        self._later: list[tuple[float, int, Callable[[], object]]] = []
        self._order = itertools.count()
        self._owed: deque[Fault] = deque()
        self._tried = 0.0
        self._hurts: list[tuple[str, float, Hurt, frozenset[int]]] = []
        self._began = time.monotonic()
        names = [path.stem for path in stage.pipelines.glob("storm-*.yaml")]
        self._notes: list[str] = []
        wanted, skipped = settings.kinds or KINDS, skipped_kinds(has_engine=stage.engine is not None)
        self.skipped = {kind: why for kind, why in skipped.items() if kind in wanted}
        self.kinds = [kind for kind in wanted if kind not in skipped]
        self._load = Load(stage, names=pipelines(settings.seed, names), width=settings.width)
        self._plan = faults(settings.seed, kinds=self.kinds)
        self._levers = Levers(stage, later=self._do_later, start=self._load.want, seed=settings.seed)

    def blow(self) -> Report:
        """The whole storm, its quiet period and its checks."""
        self._stage.call("GET", "runs/")
        self._load.begin()
        self._began = time.monotonic()
        for fault in self._plan:
            if self._is_long_enough():
                break
            self._wait(fault.after * self._settings.calmer)
            self._inject(fault)
        self._calm()
        return self._report()

    # --- the loop -----------------------------------------------------------------------------------------------------
    def _is_long_enough(self) -> bool:
        seconds, length = time.monotonic() - self._began, self._settings.length
        steps = self._count("runs_steprun") if length.steps else 0
        return length.is_reached(injected=len(self._hurts), steps=steps, seconds=seconds)

    def _inject(self, fault: Fault) -> None:
        open_runs, at = self._open_runs(), time.time()
        hurt = self._levers.pull(fault)
        if hurt is None:
            if fault.kind in PATIENT:
                self._owed.append(fault)
            return
        self._hurts.append((fault.kind, at, hurt, open_runs))
        count = len(self._hurts)
        if count % 50 == 0:
            self._say(f"{count} faults after {time.monotonic() - self._began:.0f} s, {len(self._load.runs)} runs")

    def _do_later(self, seconds: float, action: Callable[[], object]) -> None:
        heapq.heappush(self._later, (time.monotonic() + seconds, next(self._order), action))

    def _wait(self, seconds: float) -> None:
        """Let time pass, and do what is due meanwhile."""
        until = time.monotonic() + seconds
        while (now := time.monotonic()) < until:
            while self._later and self._later[0][0] <= now:
                heapq.heappop(self._later)[2]()
            if self._owed and now > self._tried + TRY_SECONDS:
                self._tried = now
                self._inject(self._owed.popleft())
            time.sleep(0.02)

    def _open_runs(self) -> frozenset[int]:
        try:
            found = self._stage.rows("SELECT id FROM runs_run WHERE ended_at IS NULL")
        except psycopg.OperationalError:
            return self._hurts[-1][3] if self._hurts else frozenset()
        return frozenset(row["id"] for row in found)

    def _count(self, table: str) -> int:
        try:
            return int(self._stage.rows(f"SELECT count(*) FROM {table}")[0]["count"])
        except psycopg.OperationalError:
            return 0

    # --- quiet --------------------------------------------------------------------------------------------------------
    def _calm(self) -> None:
        """No more faults: what was begun is undone, what was wanted is started, everything ends."""
        self._say(f"{len(self._hurts)} faults were injected; quiet now")
        self._owed.clear()
        while self._later:
            self._wait(0.1)
        self._stage.heal()
        self._stage.await_alive()
        self._load.end()
        for query in ("SELECT id FROM runs_run WHERE ended_at IS NULL",
                      "SELECT id FROM executions_execution WHERE ended_at IS NULL"):  # fmt: skip
            self._settle(lambda query=query: not self._stage.rows(query), QUIET_SECONDS)
        self._settle(lambda: not self._stage.containers(all_of_them=False), REST_SECONDS)

    def _settle(self, what: Callable[[], Any], seconds: float) -> None:
        """Wait for it; when it does not come, the checker tells what is wrong."""
        try:
            wait_for(what, seconds=seconds)
        except AssertionError as exc:
            self._notes.append(f"the quiet period ended without rest: {exc}")

    # --- what it has shown --------------------------------------------------------------------------------------------
    def _report(self) -> Report:
        numbers = sorted(row["id"] for row in self._stage.rows("SELECT id FROM runs_run"))
        violations = check(self._stage, numbers)
        violations += [Violation("detach", subject, text) for subject, text in self._levers.problems]
        violations += wrong_intents(self._load.runs, numbers, self._load.failures)
        ended = self._stage.rows("SELECT * FROM runs_run WHERE ended_at IS NOT NULL ORDER BY id")
        violations += wrong_outcomes(ended, self._load.runs, self._levers.excuses)
        lost = self._stage.proxy.lost
        self._notes.append(f"answers really lost: {lost['commit']} of COMMIT, {lost['write']} of single writes")
        lines = rows(self.kinds, self._injections(), self._events(), self._attributed(violations))
        seconds = time.monotonic() - self._began
        return Report(lines, violations, self.skipped, len(numbers), self._count("runs_steprun"), seconds, self._notes)

    def _injections(self) -> list[Injection]:
        started = {number: run for number, (_, run) in self._load.runs.items()}
        found = []
        for kind, at, hurt, open_runs in self._hurts:
            touched = open_runs if hurt.runs is None else hurt.runs
            if hurt.intent in started:
                touched |= {started[hurt.intent]}
            found.append(Injection(kind, at, touched))
        return found

    def _events(self) -> dict[int, list[float]]:
        query = (
            "SELECT r.id, array_agg(extract(epoch FROM e.at)::float8 ORDER BY e.seq) AS times FROM runs_run r"
            " JOIN events_stream s ON s.name = 'run-' || r.id JOIN events_event e ON e.stream_id = s.id GROUP BY r.id"
        )
        return {row["id"]: sorted(row["times"]) for row in self._stage.rows(query)}

    def _attributed(self, violations: list[Violation]) -> list[tuple[int | None, Violation]]:
        steps = self._stage.rows("SELECT id, run_id, execution_id FROM runs_steprun")
        by_step = {row["id"]: row["run_id"] for row in steps}
        by_execution = {row["execution_id"]: row["run_id"] for row in steps}
        return [(run_of(one, steps=by_step, executions=by_execution), one) for one in violations]
