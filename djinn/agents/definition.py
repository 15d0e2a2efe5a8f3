"""An agent as it is written: `agents/<name>/agent.yaml` and, beside it, `persona.md`.

name: Engineer            # shown to people
description: Fixes bugs with the smallest change that works.
model: openai/gpt-5       # optional; a step or DJINN_MODEL may say otherwise
tools: [read, write, edit, bash, grep, find, ls]
maxTurns: 40              # optional, as are temperature and maxOutputTokens
include: [workspace]      # optional: texts of agents/_shared/ that follow the persona
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from djinn.agents.errors import AgentInvalid
from djinn.agents.files import LARGEST_FILE, Values, read_text, read_values, validated, wrong
from djinn.agents.fragments import read_fragments
from djinn.documents.problems import Problem
from djinn.documents.tools import TOOLS as ALL_TOOLS
from djinn.documents.tools import our_tools, unknown_tool

__all__ = ["ALL_TOOLS", "Agent", "AgentInvalid", "Loaded", "load_agent"]

Tools = Annotated[tuple[str, ...], Field(max_length=200)]
Name = Annotated[str, Field(min_length=1, max_length=100)]
MaxTurns = Annotated[int, Field(ge=1, le=1000)]
MaxOutputTokens = Annotated[int, Field(ge=1)]
Temperature = Annotated[float, Field(ge=0, le=2)]


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
    emoji: str = ""
    """Shown beside the name; only folders of the other shape have one."""
    says_tools: bool = field(default=True, compare=False)
    """Whether its folder says which tools it has; else a pipeline may."""


@dataclass(frozen=True)
class Loaded:
    """An agent, and what in its folder has no effect here."""

    agent: Agent
    warnings: tuple[Problem, ...] = ()


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, populate_by_name=True, frozen=True)

    name: Name
    description: str = ""
    model: str = ""
    tools: Tools | None = None
    max_turns: MaxTurns | None = None
    max_output_tokens: MaxOutputTokens | None = None
    temperature: Temperature | None = None
    include: Annotated[tuple[str, ...], Field(max_length=20)] = ()


def load_agent(folder: Path) -> Loaded:
    """The agent of a folder; raises `AgentInvalid`."""
    path = folder / "agent.yaml"
    values = read_values(path)
    if not values.values:
        raise wrong(path, "the file is empty")
    file = validated(_File, values)
    persona = read_text(folder / "persona.md").strip()
    if not persona:
        raise wrong(folder / "persona.md", "is empty")
    texts = [persona, *read_fragments(folder.parent, file.include, values)]
    tools, warnings = tools_of(file.tools, values)
    keys = file.model_dump(exclude={"include", "tools"})
    says = file.tools is not None
    return Loaded(Agent(folder.name, persona=joined(folder, texts), tools=tools, says_tools=says, **keys), warnings)


def tools_of(names: tuple[str, ...] | None, values: Values) -> tuple[tuple[str, ...], tuple[Problem, ...]]:
    """The tools that a file's key `tools` means, all when it says nothing; a warning for each that we do not have."""
    if names is None:
        return ALL_TOOLS, ()
    ours, unknown = our_tools(names)
    places = {name: f"tools.{number}" for number, name in enumerate(names)}
    return ours, tuple(values.problem(places[name], unknown_tool(name), "warning") for name in unknown)


def joined(folder: Path, texts: list[str]) -> str:
    """The parts of a persona as one text; raises `AgentInvalid` when it is too long to be one."""
    persona = "\n\n".join(texts)
    if len(persona.encode()) > LARGEST_FILE:
        raise AgentInvalid(
            Problem(folder.name, 1, f"the persona with all its parts is larger than {LARGEST_FILE} bytes")
        )
    return persona
