"""Routes: steps that nothing reaches, loops that do not go on, circles that may be walked very often."""

from __future__ import annotations

from djinn.pipelines.checks.context import Checking
from djinn.pipelines.checks.graph import circles
from djinn.pipelines.checks.steps import routes_of
from djinn.pipelines.loops import ends_item, exits
from djinn.pipelines.reading.steps import StepSource
from djinn.pipelines.schema import Step

MANY_VISITS = 100


def check_routed(checking: Checking) -> None:
    """Reports loops that the token does not walk as they are meant, and keys without effect."""
    if checking.pipeline.family == "graph" or not checking.pipeline.is_routed:
        return
    for source in checking.sources:
        if source.depends_on:
            checking.warn(source, "has no effect in a pipeline with routes", "dependsOn")
        _check_inside(checking, source)
        if source.step.loop is not None:
            _check_loop(checking, source)
    _check_exits(checking)
    _warn_of_many_visits(checking)


def warn_of_unreached(checking: Checking) -> None:
    """Steps that the token never comes to; only told of a file whose routes are right."""
    if checking.report.has_errors or not checking.pipeline.is_routed:
        return
    first = [checking.first.id] if checking.first is not None else []
    reached = _reached_from(checking, first)
    for source in checking.sources:
        if source.step.id not in reached:
            checking.report.warn(source.node.line, "no route leads to it", step=source.step.id)


def _reached_from(checking: Checking, names: list[str]) -> set[str]:
    reached: set[str] = set()
    waiting = [*names]
    while waiting:
        name = waiting.pop()
        if name in checking.steps and name not in reached:
            reached.add(name)
            waiting.extend(target for target, _ in routes_of(checking.steps[name]))
    return reached


# --- Loops ------------------------------------------------------------------------------------------------------------
def _check_inside(checking: Checking, source: StepSource) -> None:
    """Actions that only steps for an item can have."""
    step = source.step
    if step.loop is not None:
        return
    own = {name for loop, body in checking.bodies.items() if step.id in body for name in (*body, loop)}
    for path, route in step.actions:
        for key, is_there in (("continueLoop", route.continue_loop), ("break", route.breaks)):
            if is_there and not own:
                message = "this step is not among the steps from a loop's 'onEachComplete' on: there is no loop to "
                checking.error(source, message + ("continue" if route.continue_loop else "break"), *path, key)
        if route.breaks and route.goto is not None and _stays(checking, step, route.goto):
            checking.error(source, f"{route.goto} belongs to the same item: there is no loop to break", *path, "break")


def _stays(checking: Checking, step: Step, target: str) -> bool:
    """Whether every loop that the step is in has the target as its step or in its steps."""
    around = [loop for loop, body in checking.bodies.items() if step.id in body]
    return bool(around) and all(target == loop or target in checking.bodies[loop] for loop in around)


def _check_exits(checking: Checking) -> None:
    """Ways out of a loop that would leave other items undone without a word."""
    by_id = {source.step.id: source for source in reversed(checking.sources)}
    for found in exits(checking.pipeline, checking.bodies):
        how = "say so with 'break: true' beside it" if found.path[-1] == "goto" else "say so by an action with 'break'"
        message = (
            f"leads to {found.target}, out of the loop of {found.loop}, whose other items would not be done;"
            f" {how}, or go on with 'continueLoop: true'"
        )
        checking.error(by_id[found.step], message, *found.path)


def _check_loop(checking: Checking, source: StepSource) -> None:
    step = source.step
    assert step.loop is not None
    for path, route in step.actions:
        keys = {"goto": route.goto is not None, "continueLoop": route.continue_loop, "break": route.breaks}
        for key in [key for key, is_there in keys.items() if is_there]:
            message = "has no effect on a step with 'loop'; what follows an item is said by 'onEachComplete'"
            checking.warn(source, message, *path, key)
    if step.loop.on_all_complete is not None and step.on_complete is not None:
        checking.warn(source, "has no effect beside 'loop.onAllComplete'", "onComplete")
    first = step.loop.on_each_complete
    if first is None or first == step.id or first not in checking.steps:
        return
    if not checking.bodies[step.id]:
        outside = {step.loop.on_all_complete, step.on_complete, None}
        ids = ", ".join(name for name in checking.steps if name in _reached_from(checking, [first]) - outside)
        message = f"the steps for an item ({ids}) never come back: one of them needs 'continueLoop: true' as an action"
        checking.error(source, message, "loop", "onEachComplete")
    _warn_of_silent_ends(checking, step)


def _warn_of_silent_ends(checking: Checking, loop: Step) -> None:
    for other in checking.sources:
        step = other.step
        is_silent = step.loop is None and not step.actions and ends_item(step)
        if step.id in checking.bodies[loop.id] and is_silent:
            message = f"the steps for an item of {loop.id} end here without 'continueLoop'; the next item follows"
            checking.warn(other, message, "id")


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
