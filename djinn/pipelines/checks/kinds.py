"""What must fit together within one step: results, approvals, schemas of answers."""

from __future__ import annotations

from djinn.pipelines.checks.context import Checking
from djinn.pipelines.document import line_of
from djinn.pipelines.readers import is_name
from djinn.pipelines.reading.steps import COMMENT, StepSource
from djinn.pipelines.results import folded
from djinn.pipelines.schema import Approve
from djinn.pipelines.structured import check_schema, output_problems

VERDICTS = ("approved", "rejected")
TAKEN = frozenset({"inputs", "steps", "matrix", "current_item", "current_index", "completed_items"})
HIDDEN = "is one that Djinn gives itself; it hides this value in some steps"
ROLES = frozenset({"operator", "admin"})


def check_kinds(checking: Checking) -> None:
    """Reports results without outputs, approvals that nobody can give, schemas that cannot be used."""
    inputs = {one.name for one in checking.pipeline.inputs}
    for name in sorted(inputs.intersection(TAKEN)):
        line = line_of(checking.document, "inputs", name)
        checking.report.warn(line, f"the name {name!r} {HIDDEN}", key=f"inputs.{name}")
    for source in checking.sources:
        if source.step.on_result and not source.step.outputs:
            checking.error(source, "a step without outputs has no results to route by", "onResult")
        for name in sorted(inputs.intersection(source.step.outputs)):
            checking.warn(source, f"the output {name!r} hides the input of that name", "outputs")
        for name in sorted(TAKEN.intersection(source.step.outputs)):
            checking.warn(source, f"the name {name!r} {HIDDEN}", "outputs")
        if source.step.approve is not None:
            _check_approval(checking, source, source.step.approve)
        if source.step.output_schema is not None:
            _check_schema(checking, source)


def _check_approval(checking: Checking, source: StepSource, approve: Approve) -> None:
    names = [name for name in approve.by if name not in ROLES]
    if len(names) == len(approve.by) < approve.count:
        people = "one person" if len(names) == 1 else f"{len(names)} people"
        checking.error(source, f"{approve.count} must agree, but only {people} may decide", "approve", "count")
    for result in source.step.on_result:
        if folded(result) not in VERDICTS:
            checking.error(source, "an approval gives approved or rejected", "onResult", result)
    if len(source.step.outputs) > 1 and source.step.outputs[1:] != (COMMENT,):
        checking.error(source, f"an approval gives its decision and {COMMENT}, nothing more", "outputs")


def _check_schema(checking: Checking, source: StepSource) -> None:
    step = source.step
    if step.output_schema is None or step.kind != "agent":
        return
    schema = dict(step.output_schema.schema)
    problems = check_schema(schema)
    for problem in problems:
        checking.error(source, problem, "outputSchema", "schema")
    if problems:
        return
    for problem in output_problems(step.outputs, schema):
        checking.error(source, problem, "outputs")
    properties = schema.get("properties")
    for name in properties if isinstance(properties, dict) and "outputs" not in source.node.entries else ():
        if not is_name(name):
            checking.warn(
                source, f"the property {name[:64]!r} is no name for an output and is left out", "outputSchema"
            )
