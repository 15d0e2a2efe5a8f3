"""Runs of a pipeline without anything that runs: one of them, or as many as it takes to walk every branch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice

from djinn.pipelines.flow import Start
from djinn.pipelines.graph import in_order
from djinn.pipelines.schema import JSON, Pipeline
from djinn.pipelines.simulation.branches import Branch, branches_of, seen_in
from djinn.pipelines.simulation.plans import GraphPlans, Plan, RoutedPlans, answers_of
from djinn.pipelines.simulation.play import Answer, Answers, Ask, Event, Played, play
from djinn.pipelines.simulation.values import Values

__all__ = ["Answer", "Answers", "Ask", "Branch", "Coverage", "Event", "Played", "Walk", "explore", "play"]

MOST_PLAYS_OF_A_BRANCH = 150
MOST_STEP_RUNS = 2000


@dataclass(frozen=True)
class Walk:
    """A played run that took branches which none before it had taken; `aim` is the one that it was made for."""

    aim: Branch
    played: Played
    inputs: Mapping[str, JSON]
    found: tuple[Branch, ...]


@dataclass(frozen=True)
class Coverage:
    """What stub agents came to; `tried` counts all plays, `plays` are those that found something."""

    branches: tuple[Branch, ...]
    covered: frozenset[Branch]
    plays: tuple[Walk, ...]
    tried: int

    @property
    def uncovered(self) -> tuple[Branch, ...]:
        return tuple(branch for branch in self.branches if branch not in self.covered)

    @property
    def percent(self) -> float:
        """How much of the branches was taken, from 0 to 100."""
        return 100.0 * len(self.covered) / len(self.branches) if self.branches else 100.0


def explore(
    pipeline: Pipeline, known: Mapping[str, Pipeline] | None = None, *, inputs: Mapping[str, JSON] | None = None
) -> Coverage:
    """Walk every branch with stub agents: for each one that nothing has taken yet, plays that are made to take it.

    `known` are the pipelines that steps may use, by id; `inputs` are fixed, the others are tried out. Nothing is
    random, and the number of plays is bounded. What no play can take stays uncovered.
    """
    return _Explorer(pipeline, known or {}, inputs or {}).coverage()


class _Explorer:
    def __init__(self, pipeline: Pipeline, known: Mapping[str, Pipeline], inputs: Mapping[str, JSON]) -> None:
        self.pipeline, self.known = pipeline, known
        self.values = Values(pipeline, known, inputs)
        self.branches = branches_of(pipeline, self.values)
        self.graph = GraphPlans(pipeline, self.values) if pipeline.family == "graph" else None
        self.plans = self.graph or RoutedPlans(pipeline, self.values)
        self.covered: set[Branch] = set()
        self.walks: list[Walk] = []
        self.tried = 0

    def coverage(self) -> Coverage:
        for branch in self._in_order():
            if branch not in self.covered:
                for plan in islice(self.plans.plans(branch), MOST_PLAYS_OF_A_BRANCH):
                    self._try(branch, plan)
                    if branch in self.covered:
                        break
        return Coverage(self.branches, frozenset(self.covered), tuple(self.walks), self.tried)

    def _in_order(self) -> list[Branch]:
        """First the branches of steps that others need: what lets a step begin is known when its followers are met."""
        if self.graph is None:
            return list(self.branches)
        place = {step.id: number for number, step in enumerate(in_order(self.pipeline))}
        return sorted(self.branches, key=lambda branch: place[branch.step])

    def _try(self, aim: Branch, plan: Plan) -> None:
        inputs = self.values.inputs(plan.assignment)
        answers = answers_of(plan, self.values)
        played = play(self.pipeline, answers, inputs=inputs, known=self.known, most_step_runs=MOST_STEP_RUNS)
        self.tried += 1
        if self.graph is not None:
            begun = (decision.step for _, decision in played.applied if isinstance(decision, Start))
            self.graph.learn(plan, begun)
        seen = seen_in(self.pipeline, played)
        found = tuple(branch for branch in self.branches if branch in seen and branch not in self.covered)
        self.covered.update(found)
        if found:
            self.walks.append(Walk(aim, played, inputs, found))
