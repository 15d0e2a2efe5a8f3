"""Loops of the routed family: which steps run for their items, what leads out of them, and where in a history a loop
was come to. The checks of a file and the flow of a run both ask here."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from djinn.pipelines.history import History, Status
from djinn.pipelines.results import folded
from djinn.pipelines.schema import Pipeline, Step

Edges = Mapping[str, set[str]]


@dataclass(frozen=True)
class Exit:
    """A key of a step for an item by which the token leaves the loop while other items may not be done."""

    step: str
    path: tuple[str, ...]
    target: str
    loop: str


def targets(pipeline: Pipeline, step: Step) -> Iterator[tuple[str, str]]:
    """The steps that may follow a step, each with its condition in words."""
    if step.loop is not None:
        yield from ((name, " for each item") for name in (step.loop.on_each_complete,) if name)
        yield from ((name, " after all items") for name in (step.loop.on_all_complete,) if name)
    for path, route in step.actions:
        if route.goto is not None:
            yield route.goto, f" when it gives {path[1]}" if len(path) > 1 else " when it gives anything else"
    if step.on_complete is not None:
        yield step.on_complete, ""
    following = None if pipeline.is_routed else pipeline.following(step.id)
    if following is not None:
        yield following.id, ""


def bodies(pipeline: Pipeline) -> dict[str, frozenset[str]]:
    """For each loop, by its step, the steps for its items: from `onEachComplete` on, as far as they lead back.

    A step that every way to the loop leads through is none of them, even when one of them leads back to it: from there
    the token comes to the loop anew. What follows the whole loop is none either. Steps that do not exist are passed by.
    """
    loops = [step for step in pipeline.steps if step.loop and step.loop.on_each_complete]
    plan = _Map(pipeline) if loops else None
    own = {loop.id: plan.body(loop, frozenset()) for loop in loops if plan is not None}
    return {name: body.union(*(own[inner] for inner in body if inner in own)) for name, body in own.items()}


def exits(pipeline: Pipeline, inside: Mapping[str, frozenset[str]]) -> Iterator[Exit]:
    """The keys that lead out of a loop without saying `break: true`; `inside` are the `bodies`."""
    known = {step.id: step for step in pipeline.steps}
    for loop, body in inside.items():
        for name in sorted(body):
            for path, target in _ways_on(known[name]):
                is_item = target in body or target == loop
                if target in known and not is_item and _innermost(inside, name) == loop:
                    yield Exit(name, path, target, loop)


def ends_item(step: Step) -> bool:
    """Whether a step for an item may be its last one: some result of it leads to no other step."""
    if step.loop is not None:
        return step.loop.on_all_complete is None and step.on_complete is None
    if step.on_complete is not None:
        return False
    if any(not route.leads_on for _, route in step.actions):
        return True
    may_be_anything = not step.must_match and step.otherwise is None
    return may_be_anything and not (step.kind == "approve" and "approved" in map(folded, step.on_result))


def after_loop(loop: Step) -> str | None:
    """The step that follows after the last item; None when there is none."""
    assert loop.loop is not None
    return loop.loop.on_all_complete or loop.on_complete


def loop_of(pipeline: Pipeline, history: History, item: str) -> Step | None:
    """The loop that this item is one of: the last loop step that ran for it."""
    for past in reversed(history):
        step = pipeline.step(past.step)
        if past.item == item and step.loop is not None and past.status is not Status.SKIPPED:
            return step
    return None


def entry_of(history: History, loop: Step, frame: str, body: frozenset[str]) -> int:
    """The position in the history at which the token last came to the loop, within the item `frame` of loops around it.

    It comes to the first item again, not to the loop, when a step of that item's own sends it there.
    """
    assert loop.loop is not None
    first = f"{frame}.0" if frame else "0"
    own = body | {loop.id} if loop.loop.on_each_complete == loop.id else body
    entry = 0
    for number, past in enumerate(history):
        if (past.step, past.item, past.attempt) == (loop.id, first, 1):
            before = history[number - 1] if number else None
            if before is None or before.step not in own or not _is_within(before.item, first):
                entry = number
    return entry


class _Map:
    """The steps of a pipeline and where each leads. Ways that leave a loop by `break` are kept apart."""

    def __init__(self, pipeline: Pipeline) -> None:
        self.steps: dict[str, Step] = {}
        for step in pipeline.steps:
            self.steps.setdefault(step.id, step)
        self.breaks = {
            name: {route.goto for _, route in step.actions if route.breaks and route.goto in self.steps}
            for name, step in self.steps.items()
        }
        every = {
            name: {target for target, _ in targets(pipeline, step) if target in self.steps}
            for name, step in self.steps.items()
        }
        self.edges = {
            name: {target for target in found if target not in self.breaks[name] or self._also_stays(name, target)}
            for name, found in every.items()
        }
        first = pipeline.steps[0].id if pipeline.steps else ""
        self.before = {step.id: _before(every, first, step.id) for step in pipeline.steps if step.loop}

    def body(self, loop: Step, around: frozenset[str]) -> frozenset[str]:
        """The steps from which the loop goes on: by `continueLoop`, by a route to its step, or else by ending there.

        What continues a loop inside of this one does not continue this one, and what leaves that one may stay in this
        one. `around` are the loops around it.
        """
        assert loop.loop is not None
        first = loop.loop.on_each_complete or ""
        outside = {loop.id, *({after_loop(loop)} - {first}), *(around or self.before.get(loop.id, set()))}
        inside = self._from(first, self.edges, outside)
        inner = self._inner(inside, around | {loop.id})
        edges = {name: self.edges[name] | (self.breaks[name] if name in inner else set()) for name in self.steps}
        inside = self._from(first, edges, outside)
        stated = {
            name for name in inside if loop.id in edges[name] or (name not in inner and _continues(self.steps[name]))
        }
        ends = {name for name in inside if ends_item(self.steps[name]) and name not in inner}
        return frozenset(_leading_to(stated or ends, {name: edges[name] for name in inside}))

    def _from(self, first: str, edges: Edges, outside: Collection[str | None]) -> set[str]:
        found: set[str] = set()
        waiting = [first]
        while waiting:
            name = waiting.pop()
            if name in self.steps and name not in found and name not in outside:
                found.add(name)
                waiting.extend(edges[name])
        return found

    def _inner(self, inside: Collection[str], around: frozenset[str]) -> set[str]:
        """The steps for the items of loops that are inside of a loop."""
        found: set[str] = set()
        for name in inside:
            step = self.steps[name]
            if step.loop is not None and step.loop.on_each_complete and name not in around:
                found |= self.body(step, around)
        return found

    def _also_stays(self, name: str, target: str) -> bool:
        """Whether a step comes to the target of one of its `break`s by another key, too."""
        return target in {other for _, other in _ways_on(self.steps[name])}


def _ways_on(step: Step) -> Iterator[tuple[tuple[str, ...], str]]:
    """Where a step for an item leads without leaving its loop on purpose, with the paths of the keys."""
    if step.loop is not None:
        following = after_loop(step)
        key = ("loop", "onAllComplete") if step.loop.on_all_complete else ("onComplete",)
        yield from [(key, following)] if following is not None else []
        return
    for path, route in step.actions:
        if route.goto is not None and not route.breaks:
            yield (*path, "goto"), route.goto
    if step.on_complete is not None:
        yield ("onComplete",), step.on_complete


def _innermost(inside: Mapping[str, frozenset[str]], name: str) -> str:
    """The loop whose items the step is for: of those around it the one with the fewest steps."""
    return min((loop for loop, body in inside.items() if name in body), key=lambda loop: len(inside[loop]))


def _is_within(item: str, path: str) -> bool:
    return item == path or item.startswith(f"{path}.")


def _before(forwards: Edges, first: str, loop: str) -> set[str]:
    """The steps that every way from the first step to the loop leads through."""
    found = set()
    for name in forwards:
        seen, waiting = {name}, [first] if first != name else []
        while waiting and loop not in seen:
            at = waiting.pop()
            seen.add(at)
            waiting.extend(forwards[at] - seen)
        if name != loop and loop not in seen:
            found.add(name)
    return found


def _continues(step: Step) -> bool:
    return any(route.continue_loop for _, route in step.actions)


def _leading_to(ends: set[str], forwards: Edges) -> set[str]:
    found = set(ends)
    while more := {name for name, following in forwards.items() if name not in found and following & found}:
        found |= more
    return found
