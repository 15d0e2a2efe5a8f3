"""Striking crash points on purpose: work is started until every rule has fired, then the stack comes to rest."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from djinn.core.faults import parse
from tests.faults.checker import check
from tests.faults.harness import Follower, Watched, quiet
from tests.faults.seen import Violation

Rules = Mapping[str, tuple[str, ...]]
"""By point, what happens at which hit: `kill9@1`, `raise@4`, `stop:3@9`."""
MOST_OPEN = 4
FOLLOWED = 3
LOOK_SECONDS = 0.2


def variable(rules: Rules) -> str:
    """The rules as the environment holds them."""
    return ",".join(f"{name}={shot}" for name, shots in rules.items() for shot in shots)


@dataclass
class Campaign:
    """What was started on a stack, and what became of it once all rules had fired and everything was at rest."""

    live: Watched
    rules: Rules
    runs: dict[int, str] = field(default_factory=dict)
    """Pipeline by run."""
    followers: dict[int, Follower] = field(default_factory=dict)
    violations: list[Violation] = field(default_factory=list)

    def unfired(self) -> list[str]:
        """Rules that have not fired yet, by the stack's own count of hits."""
        return list(_unfired(self.rules, self.live.hits()))

    def wage(self, pipelines: list[str], *, seconds: float, between: Callable[[Campaign], None]) -> None:
        """Start runs of these pipelines in turn until every rule has fired, at most so long; `between` acts as well."""
        deadline = time.monotonic() + seconds
        while self.unfired() and time.monotonic() < deadline:
            if len(self.open_runs()) < MOST_OPEN:
                pipeline = pipelines[len(self.runs) % len(pipelines)]
                run = self.live.intend(pipeline)
                self.runs[run] = pipeline
                if len(self.followers) < FOLLOWED:
                    self.followers[run] = Follower(self.live, run)
            between(self)
            time.sleep(LOOK_SECONDS)

    def rest(self) -> None:
        """Let everything end, and check it."""
        quiet(self.live, self.runs)
        for follower in self.followers.values():
            follower.stop()
        everything = [row["id"] for row in self.live.rows("SELECT id FROM runs_run ORDER BY id")]
        self.violations = check(self.live, sorted({*everything, *self.runs}))

    def open_runs(self) -> list[int]:
        query = "SELECT id FROM runs_run WHERE ended_at IS NULL AND parent_id IS NULL ORDER BY id"
        return [row["id"] for row in self.live.rows(query)]

    def of(self, pipeline: str) -> list[int]:
        """The runs of that pipeline."""
        return [run for run, name in self.runs.items() if name == pipeline]

    def ends(self) -> dict[str, set[str]]:
        """By pipeline, the states in which its runs have ended."""
        found: dict[str, set[str]] = {}
        for run, pipeline in self.runs.items():
            found.setdefault(pipeline, set()).add(self.live.run_row(run)["status"])
        return found


def _unfired(rules: Rules, hits: Mapping[str, list[str]]) -> Iterator[str]:
    parsed, problems = parse(variable(rules))
    assert not problems, problems
    for name, shots in parsed.items():
        done = hits.get(name, [])
        for rule in shots:
            if len(done) < rule.hit:
                yield f"{name}={rule}@{rule.hit}"
            else:
                assert done[rule.hit - 1] == str(rule), f"{name}: {done} at hit {rule.hit}, not {rule}"
