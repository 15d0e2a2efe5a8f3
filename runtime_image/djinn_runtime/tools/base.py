"""What a tool is: one table of parameters, from which its schema and the check of its arguments are made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable

from ..children import Children
from ..journal import Journal
from ..protocol import Brief

_TYPES = {"string": str, "integer": int, "boolean": bool, "object": dict}


class ToolError(Exception):
    """The tool could not do what was asked; the text is for the model."""


@dataclass(frozen=True)
class Toolbox:
    """What tools work with."""

    brief: Brief
    outputs: list[str]
    journal: Journal
    children: Children


@dataclass(frozen=True)
class Parameter:
    """One argument of a tool. `kind` is a JSON Schema type; `more` adds to its schema."""

    name: str
    kind: str
    description: str
    is_required: bool = False
    more: tuple[tuple[str, Any], ...] = ()


@dataclass(frozen=True)
class Tool:
    """A tool and how it runs: `run(toolbox, arguments)` gives the text for the model or raises `ToolError`."""

    name: str
    description: str
    parameters: tuple[Parameter, ...]
    run: Callable[[Toolbox, dict[str, Any]], str]


def schema(tool: Tool) -> dict[str, Any]:
    """The tool as an OpenAI function."""
    properties = {
        each.name: {"type": each.kind, "description": each.description, **dict(each.more)} for each in tool.parameters
    }
    required = [each.name for each in tool.parameters if each.is_required]
    parameters = {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
    return {
        "type": "function",
        "function": {"name": tool.name, "description": tool.description, "parameters": parameters},
    }


def checked_arguments(tool: Tool, arguments: Any) -> dict[str, Any]:
    """The arguments when they fit the table, without those that are null; else raises `ToolError`."""
    if not isinstance(arguments, dict):
        raise ToolError("the arguments must be a JSON object")
    known = {each.name: each for each in tool.parameters}
    given = {name: value for name, value in arguments.items() if value is not None}
    for name in given:
        if name not in known:
            raise ToolError(f"{tool.name} has no argument {name!r}; it takes {', '.join(known) or 'none'}")
    for name, parameter in known.items():
        if name in given:
            _check_type(parameter, given[name])
        elif parameter.is_required:
            raise ToolError(f"the argument {name!r} is missing")
    return given


def _check_type(parameter: Parameter, value: Any) -> None:
    kind = _TYPES[parameter.kind]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ToolError(f"the argument {parameter.name!r} must be of type {parameter.kind}, not {type(value).__name__}")
