"""An agent as it is written: `agents/<name>/agent.yaml` and, beside it, `persona.md`.

name: Engineer            # shown to people
description: Fixes bugs with the smallest change that works.
model: openai/gpt-5       # optional; a step or DJINN_MODEL may say otherwise
tools: [read, write, edit, bash, grep, find, ls]
maxTurns: 40              # optional, as are temperature and maxOutputTokens
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from djinn.core.errors import UserError

Tool = Literal["read", "write", "edit", "bash", "grep", "find", "ls"]
ALL_TOOLS: tuple[Tool, ...] = ("read", "write", "edit", "bash", "grep", "find", "ls")
LARGEST_FILE = 256 * 1024
DEEPEST = 20


class AgentInvalid(UserError):
    """An agent's folder cannot be used; the text names file and key."""


@dataclass(frozen=True)
class Agent:
    """A persona with a model, tools and limits. `folder` is what pipelines call it."""

    folder: str
    name: str
    description: str
    persona: str
    model: str
    tools: tuple[str, ...]
    max_turns: int | None
    max_output_tokens: int | None
    temperature: float | None


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, populate_by_name=True, frozen=True)

    name: Annotated[str, Field(min_length=1, max_length=100)]
    description: str = ""
    model: str = ""
    tools: tuple[Tool, ...] = ALL_TOOLS
    max_turns: Annotated[int, Field(ge=1, le=1000)] | None = None
    max_output_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None


def load_agent(folder: Path) -> Agent:
    """The agent of a folder; raises `AgentInvalid`."""
    values = _read(folder / "agent.yaml")
    try:
        _check_depth(values)
        data: Any = yaml.load(values, Loader=yaml.CSafeLoader)
        file = _File.model_validate(data)
    except ValidationError as exc:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in exc.errors())
        raise AgentInvalid(f"{folder.name}/agent.yaml: {wrong}") from exc
    except (
        yaml.YAMLError,
        ValueError,
        RecursionError,
    ) as exc:  # the loader's own words, or what a date or number raised
        raise AgentInvalid(f"{folder.name}/agent.yaml is not YAML: {exc}") from exc
    persona = _read(folder / "persona.md").strip()
    if not persona:
        raise AgentInvalid(f"{folder.name}/persona.md is empty")
    return Agent(folder=folder.name, persona=persona, **file.model_dump())


def _check_depth(text: str) -> None:
    """Raise `ValueError` for deep nesting: the loader recurses in C, where too deep is the end of the process."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise ValueError(f"it is nested deeper than {DEEPEST} levels")


def _read(path: Path) -> str:
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise AgentInvalid(f"{path.parent.name}/{path.name} is larger than {LARGEST_FILE} bytes")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise AgentInvalid(f"{path.parent.name}/{path.name} cannot be read: {exc}") from exc
    if "\0" in text:
        raise AgentInvalid(f"{path.parent.name}/{path.name} holds a NUL character")
    return text
