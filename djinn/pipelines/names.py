"""What templates and expressions of a step may name."""

from __future__ import annotations

from collections.abc import Mapping

from djinn.pipelines.history import History, Past, Status
from djinn.pipelines.items import MOST_ITEMS
from djinn.pipelines.loops import bodies, entry_of, loop_of
from djinn.pipelines.schema import JSON, Pipeline, Step

Names = dict[str, JSON]


def names_for(pipeline: Pipeline, history: History, inputs: Mapping[str, JSON], step: Step, at: Past | None) -> Names:
    """The names for a step: each input by its own name and in `inputs`, the outputs so far, and what `at` is about.

    In a graph only outputs of the step's ancestors are there, and `steps.<ID>.status` and `.outputs`: so the names do
    not depend on which parallel step was faster.
    """
    if pipeline.family == "graph":
        found = _graph_names(pipeline, history, step)
    else:
        found = flat_outputs(history)
    return {**inputs, **found, **_item_names(pipeline, history, step, at), "inputs": dict(inputs)}


def outputs_of(pipeline: Pipeline, history: History) -> Names:
    """The outputs of a run in one namespace. Routed: the last writer wins. Graph: the last in the file's order."""
    if pipeline.family == "routed":
        return flat_outputs(history)
    outputs: Names = {}
    for step in pipeline.steps:
        outputs.update(step_outputs(step, history))
    return outputs


def flat_outputs(history: History) -> Names:
    """The outputs of all succeeded step runs; the last writer wins."""
    outputs: Names = {}
    for past in history:
        if past.status is Status.SUCCEEDED:
            outputs.update(past.outputs)
    return outputs


def step_outputs(step: Step, history: History) -> Names:
    """What a step of a graph gave: its outputs, or for several items the list of each one's, in item order.

    What its last try gave before it failed counts too: a condition asks how it ended, and why.
    """
    rows = [past for past in history if past.step == step.id]
    if not step.has_items:
        return dict(rows[-1].outputs) if rows else {}
    latest = {past.item: past for past in rows if past.item}
    ordered = [latest[item] for item in sorted(latest, key=int)]
    keys = dict.fromkeys([*step.outputs, *(key for past in ordered for key in past.outputs)])
    return {key: [past.outputs.get(key) for past in ordered] for key in keys}


def step_status(step: Step, history: History) -> str:
    """How a step of a graph has ended as a whole; empty while it has not."""
    latest = {past.item: past for past in history if past.step == step.id}
    statuses = {past.status for past in latest.values()}
    if not statuses or not all(status.is_final for status in statuses):
        return ""
    worst = (Status.CANCELLED, Status.FAILED, Status.SUCCEEDED, Status.SKIPPED)
    return next(str(status) for status in worst if status in statuses)


def ancestors_of(pipeline: Pipeline, step: Step) -> list[Step]:
    """Everything that the step needs, directly or through others, in the file's order."""
    wanted, waiting = set(), list(step.needs)
    while waiting:
        name = waiting.pop()
        if name not in wanted:
            wanted.add(name)
            waiting.extend(pipeline.step(name).needs)
    return [other for other in pipeline.steps if other.id in wanted]


def _graph_names(pipeline: Pipeline, history: History, step: Step) -> Names:
    flat: Names = {}
    steps: dict[str, JSON] = {}
    for other in ancestors_of(pipeline, step):
        outputs = step_outputs(other, history)
        flat.update(outputs)
        steps[other.id] = {"status": step_status(other, history), "outputs": dict(outputs)}
    return {**flat, "steps": steps}


def _item_names(pipeline: Pipeline, history: History, step: Step, at: Past | None) -> Names:
    """What a step for an item may name; behind a loop, the items that it had."""
    if at is None:
        return {}
    history = history if at in history else [*history, at]
    if step.matrix:
        return {**_current(at), "matrix": at.item_value}
    if step.over:
        return _current(at)
    if at.item:
        index = int(at.item.rpartition(".")[2])
        return {**_current(at), "completed_items": _completed(pipeline, history, at.item, before=index)}
    items = [past.item for past in history if past.item.isdigit() and past.status is not Status.SKIPPED]
    return {"completed_items": _completed(pipeline, history, items[-1])} if items else {}


def _current(at: Past) -> Names:
    if not at.item:
        return {}
    return {"current_item": at.item_value, "current_index": int(at.item.rpartition(".")[2])}


def _completed(pipeline: Pipeline, history: History, item: str, *, before: int = MOST_ITEMS) -> list[JSON]:
    """The items of this item's loop, since the token last came to it, each with what the steps for it gave."""
    loop = loop_of(pipeline, history, item)
    if loop is None:
        return []
    frame = item.rpartition(".")[0]
    entry = entry_of(history, loop, frame, bodies(pipeline).get(loop.id, frozenset()))
    values: dict[int, JSON] = {}
    outputs: dict[int, dict[str, JSON]] = {}
    for past in history[entry:]:
        around, _, last = past.item.rpartition(".")
        if past.item and around == frame and past.status is Status.SUCCEEDED and int(last) < before:
            values[int(last)] = past.item_value
            outputs.setdefault(int(last), {}).update(past.outputs)
    return [{"item": values[number], "outputs": outputs[number]} for number in sorted(values)]
