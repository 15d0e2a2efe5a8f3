"""What must fit together in a pipeline: ids, routes, agents, results, templates. Reports; changes nothing."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

from djinn.pipelines.document import Node, Scalar, Table, line_of
from djinn.pipelines.reading import StepSource
from djinn.pipelines.report import Report, quoted
from djinn.pipelines.schema import Pipeline, Step
from djinn.pipelines.template import Study, study

BUILT_IN_NAMES = frozenset({"task_description"})
"""Names that every template may use beside inputs and outputs."""


def check_steps(sources: Sequence[StepSource], report: Report) -> None:
    """Ids that are there twice, routes to nowhere, results without outputs, unknown dependencies."""
    lines: dict[str, int] = {}
    ids = {source.step.id for source in sources if source.step.id}
    for source in sources:
        step, line = source.step, line_of(source.node, "id")
        if step.id in lines:
            message = f"there is already a step {step.id!r} on line {lines[step.id]}"
            report.error(line, message, step=step.id, key="id")
        elif step.id:
            lines[step.id] = line
        _check_routes(source, ids, report)
        for wanted in source.depends_on:
            _check_target(source, wanted, ids, report, "dependsOn")
        if step.on_result and not step.outputs:
            message = "a step without outputs has no results to route by"
            report.error(line_of(source.node, "onResult"), message, step=step.id, key="onResult")


def check_agents(
    sources: Sequence[StepSource], declared: Collection[str], known: Collection[str] | None, report: Report
) -> None:
    """Agents that exist neither in the file nor among the known ones; not checked when those are not given."""
    if known is None:
        return
    every = {*known, *declared}
    for source in sources:
        agent = source.step.agent
        if agent and agent not in every:
            message = f"there is no agent {agent!r}{report.suggest(agent, every)}"
            report.error(line_of(source.node, "agent"), message, step=source.step.id, key="agent")


def in_order(sources: Sequence[StepSource], report: Report) -> list[StepSource]:
    """The steps so that each comes after what it depends on, else in the order of the file, as with any routes."""
    if any(source.step.is_routed for source in sources):
        return list(sources)
    ids = {source.step.id for source in sources}
    done: set[str] = set()
    ordered: list[StepSource] = []
    waiting = list(sources)
    while waiting:
        ready = next((one for one in waiting if done.issuperset(ids.intersection(one.depends_on))), None)
        if ready is None:
            names = ", ".join(source.step.id for source in waiting)
            key_line = line_of(waiting[0].node, "dependsOn")
            report.error(
                key_line, f"these steps wait for each other: {names}", step=waiting[0].step.id, key="dependsOn"
            )
            return list(sources)
        waiting.remove(ready)
        ordered.append(ready)
        done.add(ready.step.id)
    return ordered


def check_templates(pipeline: Pipeline, document: Table, sources: Sequence[StepSource], report: Report) -> None:
    """Templates that are refused, and names in them that nothing gives."""
    produced = {name for source in sources for name in source.step.outputs}
    inputs = {one.name for one in pipeline.inputs}
    for key in ("repository", "ref"):
        node = _at(document, "workspace", key)
        _check_template(node, inputs | BUILT_IN_NAMES, report, "", f"workspace.{key}")
    for source in sources:
        for key in ("input", "run"):
            _check_template(
                source.node.entries.get(key), inputs | produced | BUILT_IN_NAMES, report, source.step.id, key
            )


def check_shape(pipeline: Pipeline, sources: Sequence[StepSource], report: Report) -> None:
    """Warnings: steps that no route reaches, an order without effect, an output named as an input."""
    reached = _reached(pipeline)
    inputs = {one.name for one in pipeline.inputs}
    for source in sources:
        step = source.step
        if step.id not in reached:
            report.warn(source.node.line, "no route leads to it", step=step.id)
        if pipeline.is_routed and source.depends_on:
            line = line_of(source.node, "dependsOn")
            report.warn(line, "has no effect in a pipeline with routes", step=step.id, key="dependsOn")
        for name in inputs.intersection(step.outputs):
            line = line_of(source.node, "outputs")
            report.warn(line, f"the output {name!r} hides the input of that name", step=step.id, key="outputs")


def _check_routes(source: StepSource, ids: Collection[str], report: Report) -> None:
    step = source.step
    if step.on_complete is not None:
        _check_target(source, step.on_complete, ids, report, "onComplete")
    for result, route in step.on_result.items():
        if route.goto is not None:
            _check_target(source, route.goto, ids, report, "onResult", result, "goto")


def _check_target(source: StepSource, target: str, ids: Collection[str], report: Report, *path: str) -> None:
    if target not in ids:
        message = f"there is no step {quoted(target)}{report.suggest(target, ids)}"
        report.error(line_of(source.node, *path), message, step=source.step.id, key=".".join(path))


def _check_template(node: Node | None, known: Collection[str], report: Report, step: str, key: str) -> None:
    if not isinstance(node, Scalar):
        return
    found = study(node.text)
    for problem in found.problems:
        report.error(_file_line(node, problem.line), problem.message, step=step, key=key)
    for name in sorted(found.names - set(known)):
        message = f"nothing gives the name {name[:64]!r}; it will be empty{report.suggest(name, known)}"
        report.warn(_file_line(node, _line_of_name(node.text, name)), message, step=step, key=key)
    if key == "run":
        _warn_of_unquoted(node, found, report, step)


def _warn_of_unquoted(node: Scalar, found: Study, report: Report, step: str) -> None:
    for line in found.unquoted_lines:
        message = "a value goes into the script unquoted and could run as a command; write {{ value | quote }}"
        report.warn(_file_line(node, line), message, step=step, key="run")


def _file_line(node: Scalar, line: int) -> int:
    """The file's line for a template's line; a block's text begins on the line after its key."""
    return node.line + (line if node.is_block else max(0, line - 1))


def _line_of_name(text: str, name: str) -> int:
    return text.count("\n", 0, text.find(name)) + 1


def _at(node: Node, *path: str) -> Node | None:
    found: Node | None = node
    for key in path:
        found = found.entries.get(key) if isinstance(found, Table) else None
    return found


def _reached(pipeline: Pipeline) -> set[str]:
    steps: Mapping[str, Step] = {step.id: step for step in pipeline.steps}
    if not pipeline.is_routed:
        return set(steps)
    reached: set[str] = set()
    waiting = [pipeline.first_step.id]
    while waiting:
        step_id = waiting.pop()
        if step_id not in reached:
            reached.add(step_id)
            waiting.extend(_targets(steps[step_id]))
    return reached


def _targets(step: Step) -> Iterable[str]:
    yield from () if step.on_complete is None else (step.on_complete,)
    yield from (route.goto for route in step.on_result.values() if route.goto is not None)
