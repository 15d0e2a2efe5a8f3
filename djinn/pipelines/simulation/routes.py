"""The ways through a routed pipeline: which answers of its steps lead where."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from djinn.pipelines.loops import after_loop, bodies
from djinn.pipelines.results import folded, takes_rejection
from djinn.pipelines.schema import Pipeline, Route, Step

END, NEXT_ITEM = "", "(next item)"
Choice = str
"""What a step answers: a key of `onResult`, empty for none; of an approval `approved` or `rejected`."""
Edges = Mapping[str, tuple[tuple[Choice, str], ...]]
Bodies = Mapping[str, frozenset[str]]


def may_match_none(step: Step) -> bool:
    """Whether a result may be none of the keys: an approval with both of its decisions always matches one."""
    keys = {folded(key) for key in step.on_result}
    if step.approve is None or not keys:
        return bool(keys)
    return "approved" not in keys or ("rejected" not in keys and step.otherwise is not None)


def edges_of(pipeline: Pipeline) -> Edges:
    """From each step, by each answer, where the token goes: a step, `NEXT_ITEM`, or `END`."""
    inside = bodies(pipeline)
    return {step.id: tuple(_from(pipeline, step, inside)) for step in pipeline.steps}


def way_to(edges: Edges, start: str, target: str) -> dict[str, Choice] | None:
    """The answers along a shortest way; None when there is none."""
    ways: dict[str, dict[str, Choice]] = {start: {}}
    waiting = [start]
    while waiting:
        name = waiting.pop(0)
        if name == target:
            return ways[name]
        for choice, following in edges[name]:
            if following not in (END, NEXT_ITEM) and following not in ways:
                ways[following] = {**ways[name], name: choice}
                waiting.append(following)
    return None


def soonest(pipeline: Pipeline, edges: Edges) -> dict[str, Choice]:
    """For each step the answer that leads soonest to an end; in the steps for an item, to the next item."""
    found: dict[str, Choice] = {}
    for body in bodies(pipeline).values():
        within = {name: tuple(edge for edge in edges[name] if edge[1] in (*body, NEXT_ITEM)) for name in body}
        found.update(_shortest(within))
    rest = _shortest(edges)
    return {name: found.get(name, rest.get(name, edges[name][0][0] if edges[name] else "")) for name in edges}


def circles(pipeline: Pipeline) -> list[tuple[str, ...]]:
    """The largest sets of steps in which the token can come back to each, in the order of the file."""
    edges = edges_of(pipeline)
    forwards = {name: _reached(edges, name) for name in edges}
    found = [
        tuple(other for other in edges if other in forwards[name] and name in forwards[other])
        for name in edges
        if name in forwards[name]
    ]
    return list(dict.fromkeys(found))


def round_trip(edges: Edges, circle: tuple[str, ...]) -> dict[str, Choice]:
    """The answers that walk a shortest way round in the circle."""
    trips: list[dict[str, Choice]] = []
    for name in circle:
        for choice, following in edges[name]:
            within = {one: tuple(edge for edge in edges[one] if edge[1] in circle) for one in circle}
            way = way_to(within, following, name) if following in circle else None
            if way is not None:
                trips.append({**way, name: choice})
    return min(trips, key=len)


def _from(pipeline: Pipeline, step: Step, inside: Bodies) -> Iterator[tuple[Choice, str]]:
    around = [loop for loop, body in inside.items() if step.id in body]
    if step.loop is not None:
        yield from [("", step.loop.on_each_complete)] if step.loop.on_each_complete else []
        yield "", step.loop.on_all_complete or _behind(pipeline, step, around)
        return
    if step.approve is not None:
        yield from _from_approval(pipeline, step, inside)
        return
    other = step.otherwise or Route()
    if not step.must_match and not other.retry:
        yield "", _target(pipeline, step, other, inside)
    for key, route in step.on_result.items():
        if not route.retry:
            yield key, _target(pipeline, step, route, inside)


def _from_approval(pipeline: Pipeline, step: Step, inside: Bodies) -> Iterator[tuple[Choice, str]]:
    routes = {folded(key): route for key, route in step.on_result.items()}
    other = step.otherwise or Route()
    yield "approved", _target(pipeline, step, routes.get("approved", other), inside)
    if takes_rejection(step):
        yield "rejected", _target(pipeline, step, routes.get("rejected", other), inside)


def _target(pipeline: Pipeline, step: Step, route: Route, inside: Bodies) -> str:
    if route.continue_loop:
        return NEXT_ITEM
    if route.goto is not None:
        return route.goto
    around = sorted((loop for loop, body in inside.items() if step.id in body), key=lambda loop: len(inside[loop]))
    if not route.breaks or not around:
        return _behind(pipeline, step, around)
    loop = pipeline.step(around[0])
    following = after_loop(loop)
    return NEXT_ITEM if following in around else following or _behind(pipeline, loop, around[1:])


def _behind(pipeline: Pipeline, step: Step, around: list[str]) -> str:
    if step.on_complete is not None:
        return NEXT_ITEM if step.on_complete in around else step.on_complete
    if around:
        return NEXT_ITEM
    following = None if pipeline.is_routed else pipeline.following(step.id)
    return following.id if following is not None else END


def _shortest(edges: Edges) -> dict[str, Choice]:
    """For each step from which an end is in reach, the answer on the shortest way to it."""
    far: dict[str, int] = {END: 0, NEXT_ITEM: 0}
    best: dict[str, Choice] = {}
    for _ in edges:
        for name, options in edges.items():
            for choice, following in options:
                if following in far and far[following] + 1 < far.get(name, len(edges) + 2):
                    far[name], best[name] = far[following] + 1, choice
    return best


def _reached(edges: Edges, start: str) -> set[str]:
    found: set[str] = set()
    waiting = [start]
    while waiting:
        for _, following in edges[waiting.pop()]:
            if following not in (END, NEXT_ITEM) and following not in found:
                found.add(following)
                waiting.append(following)
    return found
