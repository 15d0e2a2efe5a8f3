"""Graphs: needs in a circle, graphs without any needs, conditions that are never true."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from djinn.documents.nodes import Table, line_of
from djinn.pipelines.checks.context import Checking
from djinn.pipelines.errors import TemplateInvalid
from djinn.pipelines.expression import evaluate, study_expression
from djinn.pipelines.schema import Step


def check_graph(checking: Checking) -> None:
    """Reports what cannot start or never will."""
    if checking.pipeline.family == "routed":
        return
    for source in checking.sources:
        if source.step.id in source.step.needs:
            checking.error(source, "a step cannot need itself", "needs")
        if _is_never_true(source.step.when):
            checking.warn(source, "is never true: the step never runs", "when")
    _report_circles(checking)
    _warn_without_needs(checking)
    _warn_of_visits(checking)


def ancestors(steps: Mapping[str, Step], step: Step) -> set[str]:
    """The ids of everything that the step needs, directly or through others, as far as it exists."""
    found: set[str] = set()
    waiting = list(step.needs)
    while waiting:
        name = waiting.pop()
        if name in steps and name not in found:
            found.add(name)
            waiting.extend(steps[name].needs)
    return found


def circles(edges: Mapping[str, tuple[str, ...]]) -> Iterator[list[str]]:
    """Ways that lead back to where they began, such as [A, B, A]; every id that is on one is on one of these."""
    covered: set[str] = set()
    for start in edges:
        way = None if start in covered else way_back(edges, start)
        if way is not None:
            covered.update(way)
            yield way


def way_back(edges: Mapping[str, tuple[str, ...]], start: str) -> list[str] | None:
    """The shortest way from an id to itself."""
    before: dict[str, str] = {}
    waiting = [start]
    for name in waiting:
        for target in edges.get(name, ()):
            if target not in before:
                before[target] = name
                waiting.append(target)
    if start not in before:
        return None
    way = [start, before[start]]
    while way[-1] != start:
        way.append(before[way[-1]])
    return way[::-1]


def _report_circles(checking: Checking) -> None:
    needs = {name: tuple(other for other in step.needs if other != name) for name, step in checking.steps.items()}
    by_id = {source.step.id: source for source in reversed(checking.sources)}
    for way in circles(needs):
        checking.error(by_id[way[0]], f"these steps need each other: {' -> '.join(way)}", "needs")


def _warn_without_needs(checking: Checking) -> None:
    if len(checking.sources) > 1 and not any(source.step.needs for source in checking.sources):
        source = next(source for source in checking.sources if source.step.is_graph)
        message = "no step of this graph has 'needs': all steps start at once"
        checking.warn(source, message)


def _warn_of_visits(checking: Checking) -> None:
    defaults = checking.document.entries.get("defaults")
    if isinstance(defaults, Table) and "maxVisits" in defaults.entries:
        line = line_of(defaults, "maxVisits")
        checking.report.warn(line, "has no effect in a graph", key="defaults.maxVisits")


def _is_never_true(when: str) -> bool:
    found = study_expression(when) if when else None
    if found is None or found.problems or found.paths:
        return False
    try:
        return not evaluate(when, {})
    except TemplateInvalid:
        return False
