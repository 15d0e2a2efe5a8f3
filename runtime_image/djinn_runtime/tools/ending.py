"""The tools that end the work: complete and fail."""

from __future__ import annotations

from typing import Any

from ..outcome import Ended, Outcome, failed, outputs_problem
from .base import Parameter, Tool, Toolbox, ToolError


def complete_tool(outputs: list[str]) -> Tool:
    """The tool `complete` for a step with these outputs."""
    values = {name: {"description": f"The output {name}: a text or any JSON value."} for name in outputs}
    more = (("properties", values), ("required", list(outputs)), ("additionalProperties", False))
    return Tool(
        name="complete",
        description="End the work successfully. Call it once, when everything is done.",
        parameters=(
            Parameter("outputs", "object", "The declared outputs by name.", bool(outputs), more),
            Parameter("summary", "string", "What was done, in a few sentences.", True),
        ),
        run=_complete,
    )


def _complete(toolbox: Toolbox, arguments: dict[str, Any]) -> str:
    outputs = arguments.get("outputs", {})
    missing = [name for name in toolbox.outputs if name not in outputs]
    extra = [name for name in outputs if name not in toolbox.outputs]
    if missing:
        raise ToolError(f"outputs are missing: {', '.join(missing)}")
    if extra:
        raise ToolError(f"outputs that the step does not declare: {', '.join(extra)}")
    problem = outputs_problem(outputs)
    if problem:
        raise ToolError(problem)
    raise Ended(Outcome(outputs=outputs, summary=arguments["summary"]))


def _fail(toolbox: Toolbox, arguments: dict[str, Any]) -> str:
    raise Ended(failed("error", arguments["message"]))


FAIL = Tool(
    name="fail",
    description="End the work as failed. Call it when the work cannot be done.",
    parameters=(Parameter("message", "string", "Why it cannot be done.", True),),
    run=_fail,
)
