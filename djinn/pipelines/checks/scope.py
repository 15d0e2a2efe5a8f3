"""Which names a step may use, and which steps give them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from djinn.pipelines.checks.context import Checking
from djinn.pipelines.checks.graph import ancestors
from djinn.pipelines.reading.steps import COMMENT, StepSource
from djinn.pipelines.schema import Step

BUILT_IN_NAMES = frozenset({"task_description", "inputs"})
"""Names that every template may use beside inputs and outputs."""
ITEM_NAMES = frozenset({"current_item", "current_index"})


@dataclass(frozen=True)
class Scope:
    """The names that one step may use."""

    inputs: frozenset[str]
    names: frozenset[str]
    item_names: frozenset[str] = frozenset()
    """Names that are there only while the step runs for an item."""
    steps: Mapping[str, frozenset[str] | None] = field(default_factory=dict)
    """In a graph, the steps that it needs with their outputs; None is any output."""
    others: Mapping[str, str] = field(default_factory=dict)
    """In a graph, names of outputs that are given only by steps that it does not need, with one such step."""
    is_open: bool = False
    """Whether a used pipeline may give names that this file does not tell."""
    is_graph: bool = False


def scope_of_document(checking: Checking) -> Scope:
    """The names in templates of the file itself."""
    inputs = frozenset(one.name for one in checking.pipeline.inputs)
    return Scope(inputs, inputs | {"inputs"})


def scopes(checking: Checking) -> Iterator[tuple[StepSource, Scope]]:
    """The names in the texts of each step."""
    is_graph = checking.pipeline.family == "graph"
    inside = checking.item_steps
    for source in checking.sources:
        yield source, _graph_scope(checking, source.step) if is_graph else _routed_scope(checking, source.step, inside)


def outputs_of(step: Step) -> frozenset[str] | None:
    """The names that a step gives; None when only the pipeline that it uses can tell."""
    if step.kind == "uses" and not step.outputs:
        return None
    return frozenset({*step.outputs, COMMENT} if step.kind == "approve" else step.outputs)


def _routed_scope(checking: Checking, step: Step, inside: Collection[str]) -> Scope:
    inputs = frozenset(one.name for one in checking.pipeline.inputs)
    given = [outputs_of(other) for other in checking.steps.values()]
    names = frozenset().union(inputs, BUILT_IN_NAMES, *(found for found in given if found is not None))
    if any(other.loop is not None for other in checking.steps.values()):
        names |= {"completed_items"}
    around = step.id in inside
    item_names = ITEM_NAMES | {"completed_items"} if around or step.loop is not None else frozenset[str]()
    return Scope(inputs, names | item_names if around else names, item_names, is_open=None in given)


def _graph_scope(checking: Checking, step: Step) -> Scope:
    inputs = frozenset(one.name for one in checking.pipeline.inputs)
    needed = ancestors(checking.steps, step) - {step.id}
    given = {name: outputs_of(other) for name, other in checking.steps.items() if name in needed}
    others: dict[str, str] = {}
    for name, other in checking.steps.items():
        if name not in needed and name != step.id:
            others.update(dict.fromkeys(outputs_of(other) or (), name))
    names = frozenset().union(inputs, BUILT_IN_NAMES, {"steps"}, *(found for found in given.values() if found))
    item_names = frozenset[str]()
    if step.has_items:
        item_names = ITEM_NAMES | {"matrix"} if step.matrix else ITEM_NAMES
    return Scope(inputs, names, item_names, given, others, is_open=None in given.values(), is_graph=True)
