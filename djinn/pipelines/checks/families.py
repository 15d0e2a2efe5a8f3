"""One file is one family: a token that walks by routes, or steps that start when what they need is done."""

from __future__ import annotations

from djinn.pipelines.checks.context import Checking
from djinn.pipelines.document import line_of
from djinn.pipelines.readers import is_null
from djinn.pipelines.reading.steps import StepSource

GRAPH = ("needs", "when", "foreach", "matrix", "continueOnError")
ROUTED = ("onComplete", "onResult", "else", "loop", "maxVisits", "dependsOn")


def check_family(checking: Checking) -> None:
    """Keys of the routed family in a file that is a graph; each one is reported."""
    if checking.pipeline.family == "routed":
        return
    graph = [(source, key) for source in checking.sources for key in _keys(source, GRAPH) if source.step.is_graph]
    source, key = graph[0]
    where = f"{key!r} of step {source.step.id} on line {line_of(source.node, key)} makes it a graph"
    for other in checking.sources:
        for routed in _keys(other, ROUTED):
            checking.error(other, f"one file is one family: {where}, which has no {routed!r}", routed)


def _keys(source: StepSource, keys: tuple[str, ...]) -> list[str]:
    entries = source.node.entries
    return [key for key in keys if key in entries and not is_null(entries[key])]
