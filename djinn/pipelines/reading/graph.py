"""What only steps of the graph family have: `needs`, `when`, `foreach`, `matrix`, `continueOnError`."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass

from djinn.documents.nodes import Items, Node, Scalar
from djinn.pipelines import readers as read
from djinn.pipelines.fields import Fields
from djinn.pipelines.items import MOST_ITEMS
from djinn.pipelines.readers import Wrong
from djinn.pipelines.schema import JSON

MOST_AXES = 10
MOST_PARALLEL = 100

_NEEDS = read.list_of(read.text)
_PARALLEL = read.integer(1, MOST_PARALLEL)
_AXIS_SCHEMA: read.Schema = {"anyOf": [{"type": ["string", "number", "boolean"]}, {"type": "array", "minItems": 1}]}


def _over(node: Node) -> str:
    """An expression, or a list of plain values, which becomes the expression of that list."""
    if not isinstance(node, Items):
        return read.text(node)
    values = [read.data(item) for item in read.entries(node)]
    if not all(isinstance(value, (str, int, float)) for value in values):
        raise Wrong("must be an expression, or a list of texts, numbers and booleans")
    return json.dumps(values, ensure_ascii=False)


_OVER = read.Reader(_over, read.either(read.text.schema, {"type": "array"}))

FOREACH_KEYS: read.Keys = {"over": _OVER.schema, "parallel": _PARALLEL.schema}
GRAPH_KEYS: read.Keys = {
    "needs": _NEEDS.schema,
    "when": read.text.schema,
    "foreach": read.either(_OVER.schema, read.mapping(FOREACH_KEYS, required=("over",))),
    "matrix": {
        "type": "object",
        "minProperties": 1,
        "maxProperties": MOST_AXES,
        "propertyNames": dict(read.name.schema),
        "additionalProperties": dict(_AXIS_SCHEMA),
    },
    "parallel": _PARALLEL.schema,
    "continueOnError": read.boolean.schema,
}


@dataclass(frozen=True)
class GraphPart:
    """The part of a step that only the graph family has."""

    needs: tuple[str, ...]
    when: str
    over: str
    matrix: dict[str, tuple[JSON, ...]]
    parallel: int
    continue_on_error: bool


def read_graph(fields: Fields) -> GraphPart:
    """The keys of the graph family of one step."""
    if fields.has("foreach") and fields.has("matrix"):
        fields.error("a step has either 'foreach' or 'matrix', not both", "matrix")
    if fields.has("parallel") and not (fields.has("foreach") or fields.has("matrix")):
        fields.error("goes with 'foreach' or 'matrix'", "parallel")
    over, parallel = _foreach(fields)
    return GraphPart(
        needs=fields.read("needs", _NEEDS, ()),
        when=fields.read("when", read.text, ""),
        over=over,
        matrix=_matrix(fields),
        parallel=parallel,
        continue_on_error=fields.read("continueOnError", read.boolean, False),
    )


def _foreach(fields: Fields) -> tuple[str, int]:
    parallel = fields.read("parallel", _PARALLEL, 4)
    if not fields.is_table("foreach"):
        return fields.read("foreach", _OVER, ""), parallel
    inner = fields.table("foreach", FOREACH_KEYS)
    assert inner is not None
    if not inner.has("over"):
        inner.error("'foreach' needs an expression that gives a list", "over")
    if inner.has("parallel") and fields.has("parallel"):
        inner.error("says the same as the key 'parallel' of the step; keep one of them", "parallel")
    return inner.read("over", _OVER, ""), inner.read("parallel", _PARALLEL, parallel)


def _matrix(fields: Fields) -> dict[str, tuple[JSON, ...]]:
    axes: dict[str, tuple[JSON, ...]] = {}
    table = fields.read("matrix", read.table, None)
    if table is None:
        return axes
    for name, node in table.entries.items():
        key, line = f"matrix.{name[:64]}", table.key_lines[name]
        if fields.value(Scalar(line, name, name), read.name, "", key):
            axes[name] = fields.value(node, _axis, (None,), key, line=line)
    combinations = math.prod(len(values) for values in axes.values())
    if not 1 <= len(table.entries) <= MOST_AXES:
        fields.error(f"must have 1 to {MOST_AXES} lists, not {len(table.entries)}", "matrix")
    elif combinations > MOST_ITEMS:
        fields.error(f"gives {combinations} combinations, at most {MOST_ITEMS} are allowed", "matrix")
    return axes


def _axis(node: Node) -> tuple[JSON, ...]:
    nodes = read.entries(node) if isinstance(node, Items) else [node]
    values = [read.data(item) for item in nodes]
    if not values or read.is_null(node):
        raise Wrong("must be a list with at least one value")
    if len({json.dumps(value, sort_keys=True) for value in values}) < len(values):
        raise Wrong("holds a value twice")
    return tuple(values)
