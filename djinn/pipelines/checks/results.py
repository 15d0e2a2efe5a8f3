"""Results: that a step which routes by them may give more than one, and that something follows each."""

from __future__ import annotations

from collections.abc import Iterator

from djinn.pipelines.checks.context import Checking
from djinn.pipelines.checks.steps import routes_of
from djinn.pipelines.loops import ends_item
from djinn.pipelines.reading.steps import StepSource
from djinn.pipelines.results import folded
from djinn.pipelines.schema import JSON, Step

HOW = "name the other results (`GOOD: {}` goes on), or say with 'else' what follows them"


def warn_of_results(checking: Checking) -> None:
    """Steps that fail by results which nobody has named; the file may have been meant otherwise."""
    for source in checking.sources:
        step = source.step
        leads_on = all(route.leads_on for _, route in step.actions)
        if step.otherwise is not None and leads_on and step.on_complete is not None and step.loop is None:
            checking.warn(source, "has no effect beside 'else': every result leads elsewhere", "onComplete")
        if step.must_match and step.outputs:
            _warn_of_one_way(checking, source)
            _warn_of_unnamed(checking, source)


def _warn_of_one_way(checking: Checking, source: StepSource) -> None:
    step = source.step
    if len(step.on_result) == 1:
        message = f"any result but {next(iter(step.on_result))!r} makes this step fail; {HOW}"
        checking.warn(source, message, "onResult")
    elif all(_leads_back(checking, step, path[1]) for path, _ in step.actions):
        checking.warn(
            source, f"each of these results leads back, and any other makes this step fail; {HOW}", "onResult"
        )


def _leads_back(checking: Checking, step: Step, key: str) -> bool:
    """Whether this result has the step come again and cannot lead past it."""
    route = step.on_result[key]
    if route.goto is None:
        return route.retry
    reached, waiting = {step.id}, [route.goto]
    comes_again = False
    while waiting:
        name = waiting.pop()
        comes_again = comes_again or name == step.id
        if name in checking.steps and name not in reached:
            reached.add(name)
            if ends_item(checking.steps[name]):
                return False
            waiting.extend(target for target, _ in routes_of(checking.steps[name]))
    return comes_again


def _warn_of_unnamed(checking: Checking, source: StepSource) -> None:
    """Values that the schema of an answer allows and that no key names."""
    step = source.step
    keys = {folded(key) for key in step.on_result}
    listed = {name: values for name, values in _listed(step) if keys.intersection(map(folded, values))}
    for name, values in listed.items() if len(listed) == 1 else ():
        missing = [str(value) for value in values if folded(value) not in keys]
        if missing:
            message = f"the schema lets {name} be {', '.join(missing)}, which makes this step fail; {HOW}"
            checking.warn(source, message, "onResult")


def _listed(step: Step) -> Iterator[tuple[str, list[JSON]]]:
    """The outputs whose values the schema of the answer lists."""
    properties = step.output_schema.schema.get("properties") if step.output_schema is not None else None
    for name in step.outputs if isinstance(properties, dict) else ():
        schema = properties.get(name) if isinstance(properties, dict) else None
        values = schema.get("enum") if isinstance(schema, dict) else None
        if isinstance(values, list):
            yield name, values
