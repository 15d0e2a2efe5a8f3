"""Plans: how the steps of one play answer, so that it takes a certain branch."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from djinn.pipelines.names import ancestors_of
from djinn.pipelines.results import folded
from djinn.pipelines.schema import JSON, Pipeline, Step
from djinn.pipelines.simulation.branches import (
    ASKS_TOO_OFTEN,
    COMES_TOO_OFTEN,
    FAILS,
    GOES_ON,
    ITEM_FAILS,
    NONE,
    ONE,
    SEVERAL,
    TOLERATED,
    TRIED_AGAIN,
    VERDICTS,
    Branch,
    failure_of,
)
from djinn.pipelines.simulation.demands import Place, demands_of_condition
from djinn.pipelines.simulation.play import Answer, Answers, Ask, Verdict
from djinn.pipelines.simulation.routes import Choice, Edges, circles, edges_of, round_trip, soonest, way_to
from djinn.pipelines.simulation.values import Values

ALWAYS = 1_000_000
_COUNTS = {NONE: 0, ONE: 1, SEVERAL: 2}


@dataclass(frozen=True)
class Plan:
    """How steps answer. `failing` is how many tries fail; `choices` are results until the `target` has said its `own`
    ones, `after` those from then on."""

    assignment: Mapping[Place, JSON] = field(default_factory=dict)
    failing: Mapping[str, int] = field(default_factory=dict)
    verdicts: Mapping[str, str] = field(default_factory=dict)
    choices: Mapping[str, Choice] = field(default_factory=dict)
    after: Mapping[str, Choice] = field(default_factory=dict)
    target: str = ""
    own: tuple[Choice, ...] = ()


def answers_of(plan: Plan, values: Values) -> Answers:
    """The answers that follow the plan, for one play."""
    said: list[Choice] = []

    def choice_of(step: Step) -> Choice:
        is_after = bool(plan.own) and len(said) >= len(plan.own)
        if step.id == plan.target and not is_after:
            said.append(plan.own[len(said)] if plan.own else "")
            return said[-1]
        return (plan.after if is_after else plan.choices).get(step.id, "")

    def answer(ask: Ask) -> Answer:
        step = ask.step
        is_meant = not step.has_items or ask.item == "0"
        if step.approve is not None:
            return Answer(_verdict(plan, step, choice_of(step)))
        if is_meant and ask.attempt <= plan.failing.get(step.id, 0):
            return Answer("failed", failure_of(step))
        choice = choice_of(step)
        outputs = values.outputs_for(step, choice, plan.assignment) if step.on_result else None
        return Answer(outputs=values.outputs_of(step, plan.assignment) if outputs is None else outputs)

    return answer


def _verdict(plan: Plan, step: Step, choice: Choice) -> Verdict:
    said = plan.verdicts.get(step.id) or ("rejected" if step.id in plan.failing else choice)
    return next((verdict for verdict in VERDICTS if verdict == said), "approved")


# --- Routed -----------------------------------------------------------------------------------------------------------
class RoutedPlans:
    """Plans for a routed pipeline: a shortest way to the step, its own answer, and on to the end."""

    def __init__(self, pipeline: Pipeline, values: Values) -> None:
        self.pipeline, self.values = pipeline, values
        self.edges: Edges = {
            name: tuple(edge for edge in found if self._may_say(pipeline.step(name), edge[0]))
            for name, found in edges_of(pipeline).items()
        }
        self.after = soonest(pipeline, self.edges)

    def plans(self, branch: Branch) -> Iterator[Plan]:
        """The plan for the branch; none when no way leads to it."""
        if branch.word == COMES_TOO_OFTEN:
            yield from self._round(branch)
            return
        step = self.pipeline.step(branch.step)
        way = way_to(self.edges, self.pipeline.first_step.id, step.id)
        if way is None:
            return
        plan = Plan(choices={**self.after, **way}, after=self.after, target=step.id, own=self._own(step, branch))
        if branch.word in (FAILS, TRIED_AGAIN):
            yield replace(plan, failing={step.id: ALWAYS if branch.word == FAILS else 1})
        elif branch.word in VERDICTS and step.approve is not None:
            yield replace(plan, own=(branch.word,))
        elif branch.word in _COUNTS:
            places = self.values.places_of_items(step)
            yield replace(plan, assignment=dict.fromkeys(places, _COUNTS[branch.word]))
        else:
            yield plan

    def _own(self, step: Step, branch: Branch) -> tuple[Choice, ...]:
        usual = self.after.get(step.id, "")
        if branch.key[:1] in (("onResult",), ("else",)):
            key = branch.key[1] if len(branch.key) > 1 and branch.key[0] == "onResult" else ""
            route = step.on_result[key] if key else step.otherwise
            said = _as_said(step, key)
            return (said,) * (route.max_retries + 1) if route and branch.word == ASKS_TOO_OFTEN else (said,)
        if branch.key == ("onComplete",) and branch.word == GOES_ON and step.loop is None:
            options = [choice for choice, following in self.edges[step.id] if self._is_by_completion(step, choice)]
            return (options[0] if options else usual,)
        return (usual,)

    def _is_by_completion(self, step: Step, choice: Choice) -> bool:
        routes = {folded(key): route for key, route in step.on_result.items()}
        route = routes.get(folded(choice), step.otherwise) if choice else step.otherwise
        return route is None or not route.leads_on

    def _round(self, branch: Branch) -> Iterator[Plan]:
        for circle in circles(self.pipeline):
            if branch.step not in circle:
                continue
            first = self.pipeline.first_step.id
            ways = [found for name in circle if (found := way_to(self.edges, first, name)) is not None]
            trip = round_trip(self.edges, circle)
            if ways and trip:
                way = min(ways, key=len)
                yield Plan(choices={**self.after, **way, **trip})

    def _may_say(self, step: Step, choice: Choice) -> bool:
        if step.approve is not None or not step.on_result or step.loop is not None:
            return True
        return self.values.outputs_for(step, choice) is not None


def _as_said(step: Step, key: str) -> Choice:
    """What the step answers so that this key matches, or none when it is empty."""
    if step.approve is None:
        return key
    return folded(key) or ("rejected" if "approved" in map(folded, step.on_result) else "approved")


# --- Graph ------------------------------------------------------------------------------------------------------------
_Change = tuple[str, Place | str, JSON]
MOST_CHANGES = 3


class GraphPlans:
    """Plans for a graph: from what let the steps before begin, with ever more changes of what conditions look at."""

    def __init__(self, pipeline: Pipeline, values: Values) -> None:
        self.pipeline, self.values = pipeline, values
        self.bases: dict[str, Plan] = {}

    def plans(self, branch: Branch) -> Iterator[Plan]:
        """Plans that may take the branch, the likeliest first."""
        step = self.pipeline.step(branch.step)
        base = self._meant(step, branch, self._base(step))
        changes = self._changes(step)
        for count in range(MOST_CHANGES + 1):
            for chosen in itertools.combinations(changes, count):
                if len({(kind, place) for kind, place, _ in chosen}) == count:
                    yield self._meant(step, branch, _changed(base, chosen))

    def learn(self, plan: Plan, begun: Iterator[str]) -> None:
        """Keep the first plan by which each of the steps has begun."""
        for name in begun:
            own = {step: tries for step, tries in plan.failing.items() if step != name}
            verdicts = {step: word for step, word in plan.verdicts.items() if step != name}
            self.bases.setdefault(name, replace(plan, failing=own, verdicts=verdicts))

    def _base(self, step: Step) -> Plan:
        if step.id in self.bases:
            return self.bases[step.id]
        found = [self.bases[name] for name in step.needs if name in self.bases]
        return Plan(
            assignment={place: value for one in found for place, value in one.assignment.items()},
            failing={name: tries for one in found for name, tries in one.failing.items() if name not in step.needs},
            verdicts={name: word for one in found for name, word in one.verdicts.items()},
        )

    def _meant(self, step: Step, branch: Branch, plan: Plan) -> Plan:
        """The plan with what the branch itself is about."""
        if branch.word in (FAILS, ITEM_FAILS, TOLERATED):
            return replace(plan, failing={**plan.failing, step.id: ALWAYS})
        if branch.word == TRIED_AGAIN:
            return replace(plan, failing={**plan.failing, step.id: 1})
        if branch.word in VERDICTS and step.approve is not None:
            return replace(plan, verdicts={**plan.verdicts, step.id: branch.word})
        if branch.word in _COUNTS:
            counts = dict.fromkeys(self.values.places_of_items(step), _COUNTS[branch.word])
            return replace(plan, assignment={**plan.assignment, **counts})
        return plan

    def _changes(self, step: Step) -> list[_Change]:
        """What may be changed for the step: what its condition and those before it look at, and failures before it."""
        before = ancestors_of(self.pipeline, step)
        changes: list[_Change] = []
        for one in (step, *reversed(before)):
            for demand in demands_of_condition(self.pipeline, self.values.outputs, one):
                changes += [("value", demand.place, value) for value in self.values.domain(demand.place)]
        changes += [("failing", one.id, ALWAYS) for one in reversed(before)]
        return list({repr(change): change for change in changes}.values())


def _changed(plan: Plan, changes: tuple[_Change, ...]) -> Plan:
    values = {place: value for kind, place, value in changes if kind == "value" and isinstance(place, tuple)}
    failing = {name: ALWAYS for kind, name, _ in changes if kind == "failing" and isinstance(name, str)}
    return replace(plan, assignment={**plan.assignment, **values}, failing={**plan.failing, **failing})
