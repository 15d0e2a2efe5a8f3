"""The brief, read and checked: what the work relies on holds from here on."""

from __future__ import annotations

import os

from .protocol import BRIEF_NAME, Brief, ProtocolError, load_brief

_NUMBERS = ("deadline_seconds", "command_timeout_seconds", "tool_output_bytes", "journal_bytes")
_TEXTS = ("execution", "token", "workspace", "gateway_socket")


def read_brief(directory: str) -> Brief:
    """The brief of an execution; raises `ProtocolError`, or OSError when it cannot be read."""
    with open(os.path.join(directory, BRIEF_NAME), "rb") as file:
        brief = load_brief(file.read())
    for name in _NUMBERS:
        value = getattr(brief, name)
        if type(value) not in (int, float) or not value > 0:
            raise ProtocolError(f"the brief's {name} is {value!r}, not a number above 0")
    for name in _TEXTS:
        _require_text(name, getattr(brief, name))
    _check_lists(brief)
    _check_mode(brief)
    if not os.path.isdir(brief.workspace):
        raise ProtocolError(f"the workspace {brief.workspace} is no directory")
    return brief


def _check_mode(brief: Brief) -> None:
    if brief.mode == "command":
        _require_text("script", brief.script)
    elif brief.mode == "agent":
        if brief.agent is None:
            raise ProtocolError("the brief's mode is agent, but it has no agent")
        for name in ("model", "system", "prompt"):
            _require_text(f"agent.{name}", getattr(brief.agent, name))
        if type(brief.agent.max_turns) is not int or brief.agent.max_turns < 1:
            raise ProtocolError(f"the brief's agent.max_turns is {brief.agent.max_turns!r}, not a whole number above 0")
        _check_schema(brief.agent.output_schema)
    else:
        raise ProtocolError(f"the brief's mode is {brief.mode!r}, not agent or command")


def _check_schema(wanted: object) -> None:
    if wanted is None:
        return
    if not isinstance(wanted, dict) or set(wanted) != {"name", "strict", "schema"}:
        raise ProtocolError("the brief's agent.output_schema is no object with name, strict and schema")
    _require_text("agent.output_schema.name", wanted["name"])
    if type(wanted["strict"]) is not bool or not isinstance(wanted["schema"], dict):
        raise ProtocolError("the brief's agent.output_schema needs strict as true or false, and schema as an object")


def _check_lists(brief: Brief) -> None:
    lists = {"outputs": brief.outputs}
    if brief.agent is not None:
        lists.update(
            {
                "agent.tools": brief.agent.tools,
                "agent.outputs": brief.agent.outputs,
                "agent.results": brief.agent.results,
            }
        )
    for name, value in lists.items():
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise ProtocolError(f"the brief's {name} is no list of texts")
    variables = brief.environment
    if not isinstance(variables, dict):
        raise ProtocolError("the brief's environment is no object")
    for key, text in variables.items():
        if not isinstance(text, str) or not key or "=" in key or "\0" in key + text:
            raise ProtocolError(f"the brief's environment holds {key!r}, which no process can be given")


def _require_text(name: str, value: object) -> None:
    if not isinstance(value, str):
        raise ProtocolError(f"the brief's {name} is no text")
