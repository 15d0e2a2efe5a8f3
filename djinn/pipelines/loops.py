"""Loops of the routed family: which steps run for their items, and where in a history a loop was come to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from djinn.pipelines.history import History, Status
from djinn.pipelines.schema import Pipeline, Step


def targets(pipeline: Pipeline, step: Step) -> Iterator[tuple[str, str]]:
    """The steps that may follow a step, each with its condition in words."""
    if step.loop is not None:
        yield from ((name, " for each item") for name in (step.loop.on_each_complete,) if name)
        yield from ((name, " after all items") for name in (step.loop.on_all_complete,) if name)
    for key, route in step.on_result.items():
        if route.goto is not None:
            yield route.goto, f" when it gives {key}"
    if step.on_complete is not None:
        yield step.on_complete, ""
    following = None if pipeline.is_routed else pipeline.following(step.id)
    if following is not None:
        yield following.id, ""


def bodies(pipeline: Pipeline) -> dict[str, frozenset[str]]:
    """For each loop, by its step, the steps for its items: from `onEachComplete` on, as far as they lead back.

    A step that every way to the loop leads through is none of them, even when one of them leads back to it: from there
    the token comes to the loop anew.
    """
    forwards = {step.id: {target for target, _ in targets(pipeline, step)} for step in pipeline.steps}
    first = pipeline.first_step.id
    return {
        step.id: _body(pipeline, step, forwards, before=_before(forwards, first, step.id))
        for step in pipeline.steps
        if step.loop and step.loop.on_each_complete
    }


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


def _is_within(item: str, path: str) -> bool:
    return item == path or item.startswith(f"{path}.")


def _before(forwards: Mapping[str, set[str]], first: str, loop: str) -> set[str]:
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


def _body(
    pipeline: Pipeline,
    loop: Step,
    forwards: Mapping[str, set[str]],
    *,
    before: set[str],
    around: frozenset[str] = frozenset(),
) -> frozenset[str]:
    """The steps from which the loop goes on: by `continueLoop`, by a route to its step, or else by ending there.

    What continues a loop inside of this one does not continue this one. `around` are the loops around it.
    """
    assert loop.loop is not None
    inside: dict[str, set[str]] = {}
    waiting = [loop.loop.on_each_complete or ""]
    while waiting:
        name = waiting.pop()
        if name not in inside and name != loop.id and name not in before:
            inside[name] = forwards[name]
            waiting.extend(forwards[name])
    inner = _inner_steps(pipeline, forwards, inside, around | {loop.id})
    stated = {
        name for name in inside if loop.id in inside[name] or (name not in inner and _continues(pipeline.step(name)))
    }
    ends = {name for name in inside if not inside[name] and name not in inner}
    return frozenset(_leading_to(stated or ends, inside))


def _inner_steps(
    pipeline: Pipeline, forwards: Mapping[str, set[str]], inside: Mapping[str, set[str]], around: frozenset[str]
) -> set[str]:
    """The steps for the items of loops that are inside of a loop."""
    found: set[str] = set()
    for name in inside:
        step = pipeline.step(name)
        if step.loop is not None and step.loop.on_each_complete and name not in around:
            found |= _body(pipeline, step, forwards, before=set(around), around=around)
    return found


def _continues(step: Step) -> bool:
    return any(route.continue_loop for route in step.on_result.values())


def _leading_to(ends: set[str], forwards: Mapping[str, set[str]]) -> set[str]:
    found = set(ends)
    while more := {name for name, following in forwards.items() if name not in found and following & found}:
        found |= more
    return found
