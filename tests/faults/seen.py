"""What the checker looks at, read once: rows, audit, journals and side files, containers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from djinn.runner.base import Phase
from djinn.runner.docker_options import EXECUTION_LABEL, INSTALLATION_LABEL
from djinn.runner.process import ProcessRunner
from djinn.runner.stub import StubRunner
from runtime_image.djinn_runtime.protocol import JOURNAL_NAME
from tests.faults.harness import SIDE_NAME, Watched
from tests.stack.live import Row

FINAL_STEPS = frozenset({"succeeded", "failed", "cancelled", "skipped"})
FINAL_RUNS = FINAL_STEPS
FINAL_EXECUTIONS = frozenset({"exited", "killed", "lost"})
PHASES = {"created": Phase.CREATED, "running": Phase.RUNNING, "paused": Phase.RUNNING, "restarting": Phase.RUNNING}


@dataclass(frozen=True)
class Violation:
    """An invariant that does not hold, of what, and what was seen."""

    invariant: str
    subject: str
    text: str

    def __str__(self) -> str:
        return f"{self.invariant} {self.subject}: {self.text}"


@dataclass
class Seen:
    """A stack at rest. Rows of the asked runs only, but for the audit, the executions' states and the containers."""

    live: Watched
    numbers: list[int]
    runs: list[Row]
    steps: list[Row]
    executions: dict[int, Row]
    """Those of the asked runs, by number."""
    audit: list[Row]
    states: dict[int, str]
    """Every execution's status, by number."""
    collected: set[int]
    """Executions whose container and directory had been removed before the containers were looked at."""
    phases: dict[str, Phase]
    """Every container of this installation, by execution."""
    _events: dict[int, list[Row]] = field(default_factory=dict)

    def events(self, run: int) -> list[Row]:
        """The run's log, in order."""
        if run not in self._events:
            self._events[run] = self.live.events(run)
        return self._events[run]

    def steps_of(self, run: int) -> list[Row]:
        return [step for step in self.steps if step["run_id"] == run]

    def kept(self, execution: int, name: str) -> Path:
        """An execution's file: in its directory, or where the watch has kept it."""
        present = self.live.installation.executions / str(execution) / name
        return present if present.is_file() else self.live.archive / str(execution) / name

    def journal(self, execution: int) -> bytes:
        """The journal's bytes; none when it was never begun."""
        path = self.kept(execution, JOURNAL_NAME)
        return path.read_bytes() if path.is_file() else b""

    def side(self, execution: int) -> Path:
        return self.kept(execution, SIDE_NAME)

    @cached_property
    def given_up(self) -> set[int]:
        """Executions that were ended over their worker's head: with their host, or with their step run."""
        return {row["row_id"] for row in self.audit if row["new_token"] and row["new_token"] > row["old_token"]
                and row["new_status"] in FINAL_EXECUTIONS}  # fmt: skip


def look(live: Watched, runs: Sequence[int]) -> Seen:
    """Read everything once."""
    numbers = list(runs)
    steps = live.rows("SELECT * FROM runs_steprun WHERE run_id = ANY(%s) ORDER BY run_id, number", numbers)
    ids = [step["execution_id"] for step in steps if step["execution_id"] is not None]
    executions = live.rows("SELECT * FROM executions_execution WHERE id = ANY(%s) ORDER BY id", ids)
    collected = live.rows("SELECT id FROM executions_execution WHERE collected_at IS NOT NULL")
    phases = containers(live)
    states = live.rows("SELECT id, status FROM executions_execution")
    return Seen(
        live=live,
        numbers=numbers,
        runs=live.rows("SELECT * FROM runs_run WHERE id = ANY(%s) ORDER BY id", numbers),
        steps=steps,
        executions={row["id"]: row for row in executions},
        audit=live.rows("SELECT * FROM audit ORDER BY id"),
        states={row["id"]: row["status"] for row in states},
        collected={row["id"] for row in collected},
        phases=phases,
    )


def containers(live: Watched) -> dict[str, Phase]:
    """Every container of the installation: `docker ps --all`, or what the other runners know."""
    root = live.installation.executions
    if live.runner == "process":
        return ProcessRunner(root / "process").executions()
    if live.runner == "stub":
        return StubRunner(root / "stub").executions()
    label = f"label={INSTALLATION_LABEL}={live.installation_name}"
    shown = f'{{{{.Label "{EXECUTION_LABEL}"}}}} {{{{.State}}}}'
    lines = live.docker("ps", "--all", "--filter", label, "--format", shown).splitlines()
    return {key: PHASES.get(state, Phase.EXITED) for key, state in (line.split() for line in lines)}


def repeated(keys: Iterator[Any] | Sequence[Any]) -> list[Any]:
    """What is there more than once."""
    found, twice = set(), []
    for key in keys:
        if key in found:
            twice.append(key)
        found.add(key)
    return twice
