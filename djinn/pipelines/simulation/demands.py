"""What the expressions of a pipeline look at: which parts of inputs and outputs, and what they compare them with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from jinja2 import nodes

from djinn.pipelines.expression import parsed
from djinn.pipelines.loops import bodies
from djinn.pipelines.names import ancestors_of
from djinn.pipelines.schema import JSON, Pipeline, Step
from djinn.pipelines.template import path_of

Place = tuple[str, tuple[str, ...]]
"""A part of an output, by its step, or of an input, by an empty text; `[]` in the path is each item of a list."""
ITEM = "[]"
_SOFT = frozenset({"lower", "upper", "trim", "default", "replace"})
_ORDERS = frozenset({"lt", "lteq", "gt", "gteq"})


@dataclass(frozen=True)
class Demand:
    """One look at a place: it is taken as a list, counted, compared with a value, or asked whether it is true."""

    place: Place
    kind: Literal["list", "length", "value", "truth"]
    value: JSON = None


def demands_of(pipeline: Pipeline, outputs: Mapping[str, Iterable[str]]) -> tuple[Demand, ...]:
    """Everything that conditions and lists look at; `outputs` are the names that each step gives, by its id."""
    finder = _Finder(pipeline, outputs)
    return tuple(dict.fromkeys(demand for step in pipeline.steps for demand in finder.of_step(step)))


def demands_of_condition(pipeline: Pipeline, outputs: Mapping[str, Iterable[str]], step: Step) -> tuple[Demand, ...]:
    """What the condition and the list of one step look at."""
    return tuple(_Finder(pipeline, outputs).of_step(step))


def states_of_condition(step: Step) -> frozenset[str]:
    """The steps whose `status` the condition reads."""
    if not step.when:
        return frozenset()
    paths = (path_of(node) for node in _walk(parsed(step.when)))
    return frozenset(path[1] for path in paths if len(path) > 1 and path[0] == "steps" and path[2:3] != ("outputs",))


class _Finder:
    def __init__(self, pipeline: Pipeline, outputs: Mapping[str, Iterable[str]]) -> None:
        self.pipeline = pipeline
        self.outputs = {name: frozenset(found) for name, found in outputs.items()}
        self.inputs = {one.name for one in pipeline.inputs}
        self.bodies = bodies(pipeline) if pipeline.family == "routed" else {}

    def of_step(self, step: Step) -> Iterator[Demand]:
        over = step.loop.over if step.loop else step.over
        if over:
            for path in _paths(parsed(over)):
                yield from (Demand(place, "list") for place in self.places(step, path))
        if step.when:
            for path, kind, value in _looks(parsed(step.when)):
                yield from (Demand(place, kind, value) for place in self.places(step, path))

    def places(self, step: Step, path: tuple[str, ...], depth: int = 0) -> Iterator[Place]:
        """Where the value of a name in a step's expression comes from."""
        root = path[0]
        if root == "inputs":
            yield from [("", path[1:])] if len(path) > 1 else []
        elif root == "steps":
            yield from [(path[1], path[3:])] if len(path) > 3 and path[1] in self.outputs else []
        elif root == "current_item":
            for loop in self._around(step) if depth < 9 else ():
                assert loop.loop is not None
                for over in _paths(parsed(loop.loop.over)):
                    for owner, found in self.places(loop, over, depth + 1):
                        yield owner, (*found, ITEM, *path[1:])
        else:
            is_graph = self.pipeline.family == "graph"
            before = ancestors_of(self.pipeline, step) if is_graph else self.pipeline.steps
            yield from ((other.id, path) for other in before if root in self.outputs[other.id])
            yield from [("", path)] if root in self.inputs else []

    def _around(self, step: Step) -> list[Step]:
        return [self.pipeline.step(loop) for loop, body in self.bodies.items() if step.id in body and loop != step.id]


def _paths(tree: nodes.Node) -> Iterator[tuple[str, ...]]:
    path = path_of(tree)
    if path:
        yield path
        return
    for child in tree.iter_child_nodes():
        yield from _paths(child)


def _walk(tree: nodes.Node) -> Iterator[nodes.Node]:
    yield tree
    for child in tree.iter_child_nodes():
        yield from _walk(child)


_Look = tuple[tuple[str, ...], Literal["length", "value", "truth"], JSON]


def _looks(tree: nodes.Node) -> Iterator[_Look]:
    if isinstance(tree, nodes.Compare):
        yield from _compared(tree)
        return
    path, kind = _subject(tree)
    if path:
        yield path, "truth" if kind == "value" else kind, None
        return
    for child in tree.iter_child_nodes():
        yield from _looks(child)


def _compared(tree: nodes.Compare) -> Iterator[_Look]:
    left = tree.expr
    for operand in tree.ops:
        right = operand.expr
        for one, other in ((left, right), (right, left)):
            path, kind = _subject(one)
            if path:
                yield from ((path, kind, value) for value in _near(_constants(other), operand.op))
        left = right


def _subject(node: nodes.Node) -> tuple[tuple[str, ...], Literal["length", "value"]]:
    kind: Literal["length", "value"] = "value"
    while isinstance(node, nodes.Filter) and node.node is not None and (node.name in _SOFT or node.name == "length"):
        kind = "length" if node.name == "length" else kind
        node = node.node
    return path_of(node), kind


def _constants(node: nodes.Node) -> list[JSON]:
    if isinstance(node, nodes.Const):
        return [node.value]
    if isinstance(node, nodes.Neg) and isinstance(node.node, nodes.Const):
        return [-node.node.value]
    if isinstance(node, (nodes.List, nodes.Tuple)):
        return [value for item in node.items for value in _constants(item)]
    return ["ok"]


def _near(values: list[JSON], operator: str) -> Iterator[JSON]:
    for value in values:
        yield value
        if operator in _ORDERS and isinstance(value, (int, float)) and not isinstance(value, bool):
            yield from (value - 1, value + 1)
