"""What must fit together between the pipelines of a folder: those that use each other."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from djinn.documents.problems import Problem
from djinn.documents.report import Report
from djinn.pipelines.checks.graph import way_back
from djinn.pipelines.checks.scope import outputs_of
from djinn.pipelines.inputs import coerced
from djinn.pipelines.loaded import Loaded, Used
from djinn.pipelines.readers import Wrong
from djinn.pipelines.schema import JSON, Input, Pipeline

DEEPEST = 5

Pipelines = Mapping[str, Loaded]
Edges = Mapping[str, tuple[str, ...]]
"""Which pipelines each one uses."""


def check_folder(
    pipelines: Pipelines, broken: Collection[str]
) -> tuple[dict[str, Loaded], dict[str, tuple[Problem, ...]]]:
    """The pipelines whose `uses` fit, and the problems of the others, by pipeline id.

    `broken` are the ids of pipelines that have problems of their own. What uses one with problems has one itself.
    """
    good, refused = dict(pipelines), set(broken) - pipelines.keys()
    problems: dict[str, tuple[Problem, ...]] = {}
    grows = any(loaded.used for loaded in pipelines.values())
    while grows:
        edges = {name: tuple(dict.fromkeys(used.step.uses for used in loaded.used)) for name, loaded in good.items()}
        found = {name: _check(loaded, good, refused, edges) for name, loaded in good.items() if loaded.used}
        bad = {name: report.problems for name, report in found.items() if report.has_errors}
        problems.update(bad)
        refused.update(bad)
        good = {name: loaded for name, loaded in good.items() if name not in bad}
        grows = bool(bad)
    return {name: _warned(loaded, good) for name, loaded in good.items()}, problems


def _check(loaded: Loaded, pipelines: Pipelines, broken: Collection[str], edges: Edges) -> Report:
    report = Report(loaded.path)
    for used in loaded.used:
        name = used.step.uses
        if name in broken:
            message = f"pipeline {name!r} has problems of its own"
        elif name not in pipelines:
            message = f"there is no pipeline {name!r}{report.suggest(name, [*pipelines, *broken])}"
        else:
            message = _nesting_problem(loaded.pipeline.id, name, edges)
            _check_given(used, pipelines[name].pipeline, report)
        if message:
            report.error(used.line, message, step=used.step.id, key="uses")
    return report


def _nesting_problem(pipeline_id: str, name: str, edges: Edges) -> str:
    """What is wrong with one pipeline's use of another, as far as it is about circles and depth."""
    way = way_back({**edges, pipeline_id: (name,)}, pipeline_id)
    if way is not None:
        return f"pipelines use each other: {' -> '.join(way)}"
    if _is_deeper(edges, name, DEEPEST - 1):
        return f"pipelines may use each other {DEEPEST} levels deep; {name!r} uses too many"
    return ""


def _is_deeper(edges: Edges, start: str, levels: int) -> bool:
    """Whether a way of more than so many uses leads on from the pipeline; circles count as no way."""
    level = {start}
    for _ in range(levels + 1):
        level = {target for name in level for target in edges.get(name, ())}
    return bool(level) and not any(way_back(edges, name) for name in level)


def _check_given(used: Used, pipeline: Pipeline, report: Report) -> None:
    declared = {one.name: one for one in pipeline.inputs}
    for name, value in used.step.given.items():
        message = _input_problem(declared.get(name), value)
        if name not in declared:
            message = f"pipeline {pipeline.id!r} has no such input{report.suggest(name, declared)}"
        if message:
            report.error(used.given_lines[name], message, step=used.step.id, key=f"with.{name}")
    for name, one in declared.items():
        if one.required and used.step.given.get(name) is None:
            message = f"pipeline {pipeline.id!r} needs the input {name!r}"
            report.error(used.line, message, step=used.step.id, key="with")


def _input_problem(declared: Input | None, value: JSON) -> str:
    """What is wrong with a value that is known before the run; a template is not."""
    is_template = isinstance(value, str) and ("{{" in value or "{%" in value or "{#" in value)
    if declared is None or value is None or is_template:
        return ""
    try:
        found = coerced(value, declared.type)
    except Wrong as exc:
        return str(exc)
    return "is not one of the choices" if declared.choices and found not in declared.choices else ""


def _warned(loaded: Loaded, pipelines: Pipelines) -> Loaded:
    report = Report(loaded.path)
    for used in loaded.used:
        given = _outputs(pipelines, used.step.uses)
        for name in () if given is None else sorted({*used.step.outputs} - given):
            message = f"pipeline {used.step.uses!r} never gives the output {name!r}{report.suggest(name, given or ())}"
            report.warn(used.outputs_line, message, step=used.step.id, key="outputs")
    if not report.problems:
        return loaded
    warnings = sorted([*loaded.warnings, *report.problems], key=lambda problem: problem.line)
    return replace(loaded, warnings=tuple(warnings))


def _outputs(pipelines: Pipelines, name: str) -> frozenset[str] | None:
    """The outputs that a pipeline may give; None when one that it uses decides that."""
    given = [outputs_of(step) for step in pipelines[name].pipeline.steps]
    known = [outputs for outputs in given if outputs is not None]
    return frozenset().union(*known) if len(known) == len(given) else None
