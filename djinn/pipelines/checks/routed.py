"""Routes: steps that nothing reaches, loops that do not go on, circles that may be walked very often."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from djinn.pipelines.checks.context import Checking
from djinn.pipelines.checks.graph import circles
from djinn.pipelines.checks.steps import routes_of
from djinn.pipelines.reading.steps import StepSource
from djinn.pipelines.schema import Step

MANY_VISITS = 100


def check_routed(checking: Checking) -> None:
    """Reports loops that the token does not walk as they are meant, and keys without effect."""
    if checking.pipeline.family == "graph" or not checking.pipeline.is_routed:
        return
    inside = item_steps(checking.steps)
    for source in checking.sources:
        if source.depends_on:
            checking.warn(source, "has no effect in a pipeline with routes", "dependsOn")
        _check_continues(checking, source, inside)
        if source.step.loop is not None:
            _check_loop(checking, source)
    _warn_of_many_visits(checking)


def warn_of_unreached(checking: Checking) -> None:
    """Steps that the token never comes to; only told of a file whose routes are right."""
    if checking.report.has_errors or not checking.pipeline.is_routed:
        return
    reached = _reached(checking)
    for source in checking.sources:
        if source.step.id not in reached:
            checking.report.warn(source.node.line, "no route leads to it", step=source.step.id)


def item_steps(steps: Mapping[str, Step]) -> frozenset[str]:
    """The ids of all steps that may run for an item of some loop, beside the loops themselves."""
    return frozenset(name for step in steps.values() for name in chain(steps, step))


def chain(steps: Mapping[str, Step], loop: Step) -> dict[str, Step]:
    """The steps from a loop's `onEachComplete` on, up to those that follow the whole loop."""
    found: dict[str, Step] = {}
    if loop.loop is None or loop.loop.on_each_complete is None:
        return found
    outside = {loop.id, loop.loop.on_all_complete or loop.on_complete} - {loop.loop.on_each_complete}
    waiting = [loop.loop.on_each_complete]
    while waiting:
        name = waiting.pop()
        if name in steps and name not in found and name not in outside:
            found[name] = steps[name]
            waiting.extend(target for target, _ in routes_of(steps[name]))
    return found


def _reached(checking: Checking) -> set[str]:
    reached: set[str] = set()
    waiting = [step.id for step in (checking.first,) if step is not None]
    while waiting:
        name = waiting.pop()
        if name in checking.steps and name not in reached:
            reached.add(name)
            waiting.extend(target for target, _ in routes_of(checking.steps[name]))
    return reached


def _check_continues(checking: Checking, source: StepSource, inside: Collection[str]) -> None:
    for result, route in source.step.on_result.items():
        if route.continue_loop and source.step.id not in inside and source.step.loop is None:
            message = "this step is not among the steps from a loop's 'onEachComplete' on: there is no loop to continue"
            checking.error(source, message, "onResult", result, "continueLoop")


def _check_loop(checking: Checking, source: StepSource) -> None:
    step = source.step
    assert step.loop is not None
    for result, route in step.on_result.items():
        key = "goto" if route.goto is not None else "continueLoop"
        if route.goto is not None or route.continue_loop:
            message = "has no effect on a step with 'loop'; what follows an item is said by 'onEachComplete'"
            checking.warn(source, message, "onResult", result, key)
    if step.loop.on_all_complete is not None and step.on_complete is not None:
        checking.warn(source, "has no effect beside 'loop.onAllComplete'", "onComplete")
    found = chain(checking.steps, step)
    if not found:
        return
    if not any(_ends_item(one, step) for one in found.values()):
        ids = ", ".join(found)
        message = f"the steps for an item ({ids}) never come back: one of them needs 'continueLoop: true' as an action"
        checking.error(source, message, "loop", "onEachComplete")
    _warn_of_silent_ends(checking, found, step)


def _warn_of_silent_ends(checking: Checking, found: Mapping[str, Step], loop: Step) -> None:
    for other in checking.sources:
        step = found.get(other.step.id)
        if step is not None and step.loop is None and step.on_complete is None and not _always_routes(step):
            message = f"the steps for an item of {loop.id} end here without 'continueLoop'; the next item follows"
            checking.warn(other, message, "id")


def _ends_item(step: Step, loop: Step) -> bool:
    """Whether the steps for an item may end with this one."""
    continues = any(route.continue_loop for route in step.on_result.values())
    leads_back = any(target == loop.id for target, _ in routes_of(step))
    has_no_next = step.on_complete is None and (step.loop is None or step.loop.on_all_complete is None)
    return continues or leads_back or has_no_next


def _always_routes(step: Step) -> bool:
    """Whether the author gave it results to route by; what matches none of them ends the item too."""
    return any(route.continue_loop or route.goto is not None for route in step.on_result.values())


def _warn_of_many_visits(checking: Checking) -> None:
    loops = {name for name, step in checking.steps.items() if step.loop is not None}
    edges = {
        name: tuple(target for target, _ in routes_of(step) if target not in loops)
        for name, step in checking.steps.items()
    }
    circled = {name for way in circles(edges) for name in way}
    for source in checking.sources:
        if source.step.id in circled and source.step.max_visits > MANY_VISITS:
            message = f"the run may go round here {source.step.max_visits} times before it fails"
            checking.warn(source, message, "maxVisits")
