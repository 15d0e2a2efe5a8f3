"""An agent as it is written: `agents/<name>/agent.yaml` and, beside it, `persona.md`.

name: Engineer            # shown to people
description: Fixes bugs with the smallest change that works.
model: openai/gpt-5       # optional; a step or DJINN_MODEL may say otherwise
tools: [read, write, edit, bash, grep, find, ls]
maxTurns: 40              # optional, as are temperature and maxOutputTokens
include: [workspace]      # optional: texts of agents/_shared/ that follow the persona
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from djinn.agents.errors import AgentInvalid
from djinn.agents.files import LARGEST_FILE, read_text, read_values, validated
from djinn.agents.fragments import read_fragments

Tool = Literal["read", "write", "edit", "bash", "grep", "find", "ls"]
ALL_TOOLS: tuple[Tool, ...] = ("read", "write", "edit", "bash", "grep", "find", "ls")

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


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, populate_by_name=True, frozen=True)

    name: Name
    description: str = ""
    model: str = ""
    tools: tuple[Tool, ...] = ALL_TOOLS
    max_turns: MaxTurns | None = None
    max_output_tokens: MaxOutputTokens | None = None
    temperature: Temperature | None = None
    include: Annotated[tuple[str, ...], Field(max_length=20)] = ()


def load_agent(folder: Path) -> Agent:
    """The agent of a folder; raises `AgentInvalid`."""
    values = read_values(folder / "agent.yaml")
    if not values.values:
        raise AgentInvalid(f"{values.name}: the file is empty")
    file = validated(_File, values)
    persona = read_text(folder / "persona.md").strip()
    if not persona:
        raise AgentInvalid(f"{folder.name}/persona.md is empty")
    texts = [persona, *read_fragments(folder.parent, file.include, values)]
    return Agent(folder=folder.name, persona=joined(folder.name, texts), **file.model_dump(exclude={"include"}))


def joined(folder: str, texts: list[str]) -> str:
    """The parts of a persona as one text; raises `AgentInvalid` when it is too long to be one."""
    persona = "\n\n".join(texts)
    if len(persona.encode()) > LARGEST_FILE:
        raise AgentInvalid(f"{folder}: the persona with all its parts is larger than {LARGEST_FILE} bytes")
    return persona
