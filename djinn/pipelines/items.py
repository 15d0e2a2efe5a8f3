"""The items that a step runs once for each of: a list in the run's data, or the combinations of a matrix."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping

from djinn.pipelines.errors import TemplateInvalid
from djinn.pipelines.expression import evaluate
from djinn.pipelines.schema import JSON, Step

MOST_ITEMS = 1000


class NoItems(Exception):
    """There is no list to run the step for; the text says why."""


def items_of(step: Step, names: Mapping[str, JSON]) -> list[JSON]:
    """The items of a `foreach`, a `matrix` or a `loop`, from data that has come in so far. Raises `NoItems`."""
    if step.matrix:
        axes = [[(name, value) for value in values] for name, values in step.matrix.items()]
        return _bounded(step, [dict(combination) for combination in itertools.product(*axes)])
    over = step.loop.over if step.loop else step.over
    try:
        value = evaluate(over, names)
    except TemplateInvalid as exc:
        raise NoItems(f"the list {over!r} cannot be read: {exc.message}") from exc
    return _bounded(step, _as_list(over, value))


def _as_list(over: str, value: JSON) -> list[JSON]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as exc:
            raise NoItems(f"{over!r} is text that is no JSON list: {str(exc)[:200]}") from exc
    if isinstance(value, list):
        return value
    kind = {dict: "a mapping", type(None): "nothing"}.get(type(value), f"{value!r}"[:100])
    raise NoItems(f"{over!r} is {kind}, not a list")


def _bounded(step: Step, items: list[JSON]) -> list[JSON]:
    if len(items) > MOST_ITEMS:
        raise NoItems(f"step {step.id} has {len(items)} items, at most {MOST_ITEMS} are allowed")
    return items
