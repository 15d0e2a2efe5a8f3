"""The tools that end the work: complete and fail."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..outcome import Ended, Outcome, failed, outputs_problem
from ..protocol import folded
from .base import Parameter, Tool, Toolbox, ToolError

MAX_ANSWERS = 3  # one answer and two more, when the result has to be one of a few


def complete_tool(outputs: list[str], results: list[str]) -> Tool:
    """The tool `complete` for these outputs; one of them has to be one of the results, if there are any."""
    rule = _rule(outputs, results)
    values = {name: _value(name, rule, results if len(outputs) == 1 else []) for name in outputs}
    more = (("properties", values), ("required", list(outputs)), ("additionalProperties", False))
    return Tool(
        name="complete",
        description=f"End the work successfully. Call it once, when everything is done.{f' {rule}.' if rule else ''}",
        parameters=(
            Parameter("outputs", "object", "The declared outputs by name.", bool(outputs), more),
            Parameter("summary", "string", "What was done, in a few sentences.", True),
        ),
        run=_Completion(results, rule).run,
    )


class _Completion:
    """Ends the work with outputs that can be used; counts those whose result cannot."""

    def __init__(self, results: list[str], rule: str) -> None:
        self._known = {folded(result) for result in results}
        self._rule = rule
        self._answers = 0

    def run(self, toolbox: Toolbox, arguments: dict[str, Any]) -> str:
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
        if self._known and self._known.isdisjoint(map(folded, outputs.values())):
            self._refuse(outputs)
        raise Ended(Outcome(outputs=outputs, summary=arguments["summary"]))

    def _refuse(self, outputs: dict[str, Any]) -> None:
        self._answers += 1
        if self._answers >= MAX_ANSWERS:
            message = f"none of {self._answers} answers could be used: {self._rule}"
            raise Ended(replace(failed("unmatched", message), outputs=outputs))
        raise ToolError(f"{self._rule}, without any other word; call `complete` again")


def _value(name: str, rule: str, results: list[str]) -> dict[str, Any]:
    if results:
        return {"type": "string", "enum": results, "description": f"The output {name}: exactly one of these."}
    text = f"The output {name}: a text or any JSON value."
    return {"description": f"{text} {rule}." if rule else text}


def _rule(outputs: list[str], results: list[str]) -> str:
    if not results:
        return ""
    which = outputs[0] if len(outputs) == 1 else f"One of {', '.join(outputs)}"
    return f"{which} must be exactly {results[0] if len(results) == 1 else 'one of ' + ' | '.join(results)}"


def _fail(toolbox: Toolbox, arguments: dict[str, Any]) -> str:
    raise Ended(failed("error", arguments["message"]))


FAIL = Tool(
    name="fail",
    description="End the work as failed. Call it when the work cannot be done.",
    parameters=(Parameter("message", "string", "Why it cannot be done.", True),),
    run=_fail,
)
