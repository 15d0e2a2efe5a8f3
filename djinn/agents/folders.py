"""Agent folders in the other common shape: `IDENTITY.md`, `SOUL.md`, `AGENTS.md`, `DECISION.md` and `config.yml`.

IDENTITY.md   **Name:** Eric, **Role:** Product owner, **Emoji:** 🧭, each on a line of its own, also as list items
SOUL.md       who the agent is           } these three, in this order and under headings,
AGENTS.md     how it works               } are the persona; without any of them it is
DECISION.md   how it decides             } the text of IDENTITY.md
config.yml    model, tools and limits; keys in snake_case or camelCase

One of IDENTITY.md and SOUL.md must be there. What only other systems know is a warning, not an error.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_snake

from djinn.agents.definition import (
    Agent,
    Loaded,
    MaxOutputTokens,
    MaxTurns,
    Name,
    Temperature,
    Tools,
    joined,
    tools_of,
)
from djinn.agents.errors import AgentInvalid
from djinn.agents.files import Values, read_text, read_values, shown, validated
from djinn.documents.problems import Problem

PARTS = {"SOUL.md": "Who you are", "AGENTS.md": "How you work", "DECISION.md": "How you decide"}
MARKS = ("IDENTITY.md", "SOUL.md")
"""A folder is of this shape when one of these is in it."""
CONFIG = "config.yml"

_LABEL = re.compile(
    r"(?:[-*+]\s+)?(?:\*\*|__)\s*(name|role|emoji)\s*(?::\s*(?:\*\*|__)|(?:\*\*|__)\s*:)\s*(.*)", re.IGNORECASE
)
_PLACEHOLDER = re.compile(r"[_*]\(.*\)[_*]|\[.*\]|\{\{.*\}\}|<.*>")
"""What a template has where nobody has filled in anything."""


class _Config(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    name: Name | None = None
    description: str = ""
    model: str = ""
    tools: Tools | None = None
    max_turns: MaxTurns | None = None
    max_output_tokens: MaxOutputTokens | None = None
    temperature: Temperature | None = None


class _Identity(BaseModel):
    name: Name | None = None
    role: Annotated[str, Field(max_length=300)] = ""
    emoji: Annotated[str, Field(max_length=20)] = ""


def is_folder_agent(folder: Path) -> bool:
    """Whether the folder is an agent of this shape."""
    return any((folder / name).exists() for name in MARKS)


def load_folder_agent(folder: Path) -> Loaded:
    """The agent of a folder of this shape; raises `AgentInvalid`."""
    about = read_text(folder / "IDENTITY.md") if (folder / "IDENTITY.md").exists() else ""
    identity = validated(_Identity, _labels(about, shown(folder / "IDENTITY.md")))
    config, written, idle = _config(folder / CONFIG)
    tools, unknown = tools_of(config.tools, written)
    agent = Agent(
        folder=folder.name,
        name=identity.name or config.name or _spoken(folder.name),
        description=identity.role or config.description,
        persona=_persona(folder, about, identity),
        model=config.model,
        tools=tools,
        max_turns=config.max_turns,
        max_output_tokens=config.max_output_tokens,
        temperature=config.temperature,
        emoji=identity.emoji,
        says_tools=config.tools is not None,
    )
    return Loaded(agent, (*idle, *unknown))


def _labels(text: str, file: str) -> Values:
    """The bold labels of an identity; the first one of a kind counts, and its value may stand on the next line."""
    values: dict[str, object] = {}
    lines: dict[str, int] = {}
    rows = text.split("\n")
    for number, row in enumerate(rows, 1):
        found = _LABEL.fullmatch(row.strip())
        if found is None or (key := found[1].lower()) in values:
            continue
        value = found[2] or _continued(rows[number : number + 1])
        if value and not _PLACEHOLDER.fullmatch(value):
            values[key], lines[key] = value, number
    return Values(file, values, lines)


def _continued(rows: list[str]) -> str:
    row = rows[0] if rows else ""
    return row.strip() if row[:1] in (" ", "\t") and not _LABEL.fullmatch(row.strip()) else ""


def _persona(folder: Path, about: str, identity: _Identity) -> str:
    parts = {name: read_text(folder / name).strip() for name in PARTS if (folder / name).exists()}
    texts = [f"# {PARTS[name]}\n\n{text}" for name, text in parts.items() if text]
    if not texts and not about.strip():
        raise AgentInvalid(Problem(folder.name, 1, f"{', '.join(PARTS)} and IDENTITY.md say nothing"))
    if not texts:
        return about.strip()
    opening = f"You are {identity.name}{f', {identity.role}' if identity.role else ''}." if identity.name else ""
    return joined(folder, [*([opening] if opening else []), *texts])


def _config(path: Path) -> tuple[_Config, Values, list[Problem]]:
    """What the file says, where, and a warning for each key that has no effect."""
    if not path.exists():
        return _Config(), Values(shown(path), {}, {}), []
    written = read_values(path)
    values: dict[str, object] = {}
    lines: dict[str, int] = {}
    warnings = []
    for key, value in written.values.items():
        name = to_snake(key)
        if name not in _Config.model_fields:
            warnings.append(written.problem(key, "this key has no effect here", "warning"))
        elif name in values:
            raise AgentInvalid(
                written.problem(key, f"says the same as the key on line {lines[name]}; keep one of them")
            )
        elif value is not None:
            values[name], lines[name] = value, written.lines[key]
    return validated(_Config, Values(written.name, values, lines)), written, warnings


def _spoken(folder: str) -> str:
    return folder.replace("-", " ").replace("_", " ").strip().capitalize()[:100]
