"""The order of a pipeline's steps by `dependsOn`."""

from __future__ import annotations

from collections.abc import Sequence

from djinn.documents.nodes import line_of
from djinn.documents.report import Report
from djinn.pipelines.reading.steps import StepSource


def in_order(sources: Sequence[StepSource], report: Report) -> list[StepSource]:
    """The steps so that each comes after what it depends on, else in the order of the file, as with any routes."""
    if any(source.step.is_routed or source.step.is_graph for source in sources):
        return list(sources)
    ids = {source.step.id for source in sources}
    done: set[str] = set()
    ordered: list[StepSource] = []
    waiting = list(sources)
    while waiting:
        ready = next((one for one in waiting if done.issuperset(ids.intersection(one.depends_on))), None)
        if ready is None:
            names = ", ".join(source.step.id for source in waiting)
            line, first = line_of(waiting[0].node, "dependsOn"), waiting[0].step.id
            report.error(line, f"these steps wait for each other: {names}", step=first, key="dependsOn")
            return list(sources)
        waiting.remove(ready)
        ordered.append(ready)
        done.add(ready.step.id)
    return ordered
