"""Stub values: inputs and outputs that a pipeline can go on with, and the other values that its conditions know."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping

from jsonschema.validators import Draft202012Validator, validator_for
from referencing import Registry

from djinn.pipelines.inputs import coerced
from djinn.pipelines.items import NoItems, items_of
from djinn.pipelines.readers import Wrong
from djinn.pipelines.results import key_of
from djinn.pipelines.schema import JSON, Input, Pipeline, Step
from djinn.pipelines.simulation.demands import ITEM, Demand, Place, demands_of, demands_of_condition
from djinn.pipelines.simulation.samples import Schema, part_of, sampled

Assignment = Mapping[Place, JSON]
"""Values that are chosen for some places; for a list, how many items it has."""
USUAL_COUNTS = (2, 1, 0)
MOST_TRIES = 500
_TYPED: Mapping[str, JSON] = {"string": "ok", "text": "ok", "integer": 1, "number": 1, "boolean": True}


class Values:
    """The values of one pipeline. `given` are inputs that somebody has fixed."""

    def __init__(self, pipeline: Pipeline, known: Mapping[str, Pipeline], given: Mapping[str, JSON]) -> None:
        self.pipeline, self.given = pipeline, given
        self.outputs = {step.id: tuple(_outputs(step, known)) for step in pipeline.steps}
        self._demands: dict[Place, list[Demand]] = {}
        for demand in demands_of(pipeline, self.outputs):
            self._demands.setdefault(demand.place, []).append(demand)
        self._inputs = {one.name: one for one in pipeline.inputs}

    def inputs(self, assignment: Assignment) -> dict[str, JSON]:
        """A value for each input."""
        found = {name: self._build(("", (name,)), assignment) for name in self._inputs}
        return {**found, **self.given}

    def outputs_of(self, step: Step, assignment: Assignment) -> dict[str, JSON]:
        """What a successful try of the step gives."""
        found = {name: self._build((step.id, (name,)), assignment) for name in self.outputs[step.id]}
        return {name: _as_script_writes(value) for name, value in found.items()} if step.kind == "run" else found

    def outputs_for(self, step: Step, key: str, assignment: Assignment | None = None) -> dict[str, JSON] | None:
        """What the step gives so that this key of `onResult` matches, or none when it is empty; None when it cannot."""
        base = self.outputs_of(step, assignment or {})
        if (key_of(step, base) or "") == key:
            return base
        names = self.outputs[step.id]
        for changed in _changes(names):
            domains = [self._answers(step, name, key) for name in changed]
            for values in itertools.islice(itertools.product(*domains), MOST_TRIES):
                outputs = {**base, **dict(zip(changed, values, strict=True))}
                if (key_of(step, outputs) or "") == key:
                    return outputs
        return None

    def domain(self, place: Place) -> list[JSON]:
        """The values that are worth a try at the place, the usual one first; for a list, numbers of items."""
        if self.is_list(place):
            return list(self._counts(place))
        schema = self._schema(place)
        demands = self._demands.get(place, [])
        wanted: list[JSON] = [demand.value for demand in demands if demand.kind == "value"]
        if any(demand.kind == "truth" for demand in demands):
            wanted += [True, False, ""]
        usual = self._usual(place, schema)
        return _distinct([usual, *self._fitting(place, [*wanted, *_others(schema, usual)])])

    def counts(self, step: Step) -> frozenset[int]:
        """How many items the step may have."""
        places = list(self.places_of_items(step))
        if not places:
            try:
                return frozenset({len(items_of(step, {**self.given, "inputs": dict(self.given)}))})
            except NoItems:
                return frozenset(USUAL_COUNTS)
        return frozenset(count for place in places for count in self._counts(place))

    def places_of_items(self, step: Step) -> Iterator[Place]:
        """The lists that the step takes its items from; none when they stand in the file."""
        for demand in demands_of_condition(self.pipeline, self.outputs, step):
            if demand.kind == "list" and not (demand.place[0] == "" and demand.place[1][0] in self.given):
                yield demand.place

    def is_list(self, place: Place) -> bool:
        return any(demand.kind in ("list", "length") for demand in self._demands.get(place, []))

    # --- Building -----------------------------------------------------------------------------------------------------
    def _build(self, place: Place, assignment: Assignment) -> JSON:
        owner, path = place
        schema = self._schema(place)
        if self.is_list(place) or _is_list_schema(schema):
            return self._list(place, assignment)
        if place in assignment:
            return assignment[place]
        inner = dict.fromkeys([*self._keys_below(place), *_required(schema)])
        if inner:
            return {key: self._build((owner, (*path, key)), assignment) for key in inner}
        return self._usual(place, schema)

    def _list(self, place: Place, assignment: Assignment) -> JSON:
        declared = self._input(place)
        if place not in assignment and declared is not None and isinstance(declared.default, list):
            return declared.default
        counts = self._counts(place)
        chosen = assignment.get(place, counts[0])
        count = chosen if isinstance(chosen, int) else counts[0]
        owner, path = place
        inside = (owner, (*path, ITEM))
        is_plain = not self._keys_below(inside) and not self.is_list(inside) and self._schema(inside) is None
        if is_plain:
            return [f"item {number}" for number in range(1, count + 1)]
        return [self._build(inside, assignment) for _ in range(count)]

    def _counts(self, place: Place) -> tuple[int, ...]:
        """How many items the list may have, the usual number first: what the schema or the input's choices allow."""
        wanted = [demand.value for demand in self._demands.get(place, []) if demand.kind == "length"]
        numbers = [number for number in wanted if isinstance(number, int) and 0 <= number <= 1000]
        schema, declared = self._schema(place) or {}, self._input(place)
        least, most = schema.get("minItems", 0), schema.get("maxItems", 1000)
        if declared is not None and declared.choices:
            return tuple(dict.fromkeys(len(one) for one in declared.choices if isinstance(one, list))) or (0,)
        allowed = [
            number
            for number in (*USUAL_COUNTS, *numbers)
            if isinstance(least, int) and isinstance(most, int) and least <= number <= most
        ]
        return tuple(dict.fromkeys(allowed)) or (least if isinstance(least, int) else 0,)

    def _keys_below(self, place: Place) -> list[str]:
        owner, path = place
        below = [found[len(path)] for one, found in self._demands
                 if one == owner and len(found) > len(path) and found[: len(path)] == path]  # fmt: skip
        return [key for key in dict.fromkeys(below) if key != ITEM]

    def _usual(self, place: Place, schema: Schema | None) -> JSON:
        declared = self._input(place)
        if declared is not None:
            return _usual_input(declared)
        return sampled(schema, self._root(place)) if schema is not None else "ok"

    def _input(self, place: Place) -> Input | None:
        owner, path = place
        return self._inputs.get(path[0]) if owner == "" and len(path) == 1 else None

    def _schema(self, place: Place) -> Schema | None:
        root = self._root(place)
        return part_of(root, place[1]) if root is not None else None

    def _root(self, place: Place) -> Schema | None:
        step = self.pipeline.step(place[0]) if place[0] else None
        return step.output_schema.schema if step is not None and step.output_schema is not None else None

    def _fitting(self, place: Place, values: list[JSON]) -> list[JSON]:
        """Those of the values that the input's type or the step's schema allows."""
        declared, schema, root = self._input(place), self._schema(place), self._root(place)
        if declared is not None:
            return [value for value in [*declared.choices, *values] if _fits_input(declared, value)]
        if schema is None or root is None:
            return values
        whole = validator_for(dict(root), default=Draft202012Validator)(dict(root), registry=Registry())
        validator = whole.evolve(schema=dict(schema))
        return [value for value in values if validator.is_valid(value)]

    def _answers(self, step: Step, name: str, key: str) -> list[JSON]:
        values = [value for value in self.domain((step.id, (name,))) if not self.is_list((step.id, (name,)))]
        if self._schema((step.id, (name,))) is None:
            values += [key or "other", "neither"]
        return values


def _outputs(step: Step, known: Mapping[str, Pipeline]) -> Iterator[str]:
    """The names that the step gives, as far as files tell."""
    if step.outputs or step.approve is not None:
        yield from step.outputs
    elif step.kind == "uses" and step.uses in known:
        inner = {**known}
        child = inner.pop(step.uses)
        yield from dict.fromkeys(name for one in child.steps for name in _outputs(one, inner))
    elif step.output_schema is not None:
        properties = step.output_schema.schema.get("properties")
        yield from properties if isinstance(properties, dict) else ()


def _changes(names: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    yield from ((name,) for name in names)
    yield names


def _as_script_writes(value: JSON) -> str:
    """Outputs of scripts are text."""
    return value if isinstance(value, str) else json.dumps(value)


def _usual_input(declared: Input) -> JSON:
    if declared.default is not None:
        return declared.default
    if declared.choices:
        return declared.choices[0]
    return _TYPED.get(declared.type, ["item 1", "item 2"] if declared.type == "list" else {})


def _is_list_schema(schema: Schema | None) -> bool:
    return schema is not None and schema.get("type") == "array" and not ({"enum", "const"} & schema.keys())


def _required(schema: Schema | None) -> list[str]:
    properties = (schema or {}).get("properties")
    return list(properties) if isinstance(properties, dict) else []


def _others(schema: Schema | None, usual: JSON) -> list[JSON]:
    """Values beside the usual one that nobody asks for by name."""
    if schema is None:
        return ["other", not usual] if isinstance(usual, bool) else ["other"]
    listed = schema.get("enum")
    values: list[JSON] = list(listed) if isinstance(listed, list) else []
    return [*values, True, False] if schema.get("type") == "boolean" else [*values, "other"]


def _fits_input(declared: Input, value: JSON) -> bool:
    try:
        return coerced(value, declared.type) == value and (not declared.choices or value in declared.choices)
    except Wrong:
        return False


def _distinct(values: list[JSON]) -> list[JSON]:
    found: dict[str, JSON] = {}
    for value in values:
        found.setdefault(json.dumps(value, sort_keys=True), value)
    return list(found.values())
