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
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_snake

from djinn.agents.definition import (
    ALL_TOOLS,
    Agent,
    MaxOutputTokens,
    MaxTurns,
    Name,
    Temperature,
    joined,
)
from djinn.agents.errors import AgentInvalid
from djinn.agents.files import Values, read_text, read_values, shown, validated

PARTS = {"SOUL.md": "Who you are", "AGENTS.md": "How you work", "DECISION.md": "How you decide"}
MARKS = ("IDENTITY.md", "SOUL.md")
"""A folder is of this shape when one of these is in it."""
CONFIG = "config.yml"

TOOL_NAMES: Mapping[str, str] = {
    **{name: name for name in ALL_TOOLS},
    **dict.fromkeys(("read_file", "readfile", "view", "open_file"), "read"),
    **dict.fromkeys(("write_file", "writefile", "create_file"), "write"),
    **dict.fromkeys(("edit_file", "editfile", "multiedit", "str_replace", "apply_patch"), "edit"),
    **dict.fromkeys(("shell", "exec", "terminal", "run_command", "execute_command", "run_shell_command"), "bash"),
    **dict.fromkeys(("grep_search", "search_files", "search_file_content"), "grep"),
    **dict.fromkeys(("glob", "find_files", "file_search"), "find"),
    **dict.fromkeys(("list", "list_dir", "list_directory", "list_files"), "ls"),
}
"""What tools of the same meaning are called elsewhere, in lower case, and what they are called here."""

_LABEL = re.compile(
    r"(?:[-*+]\s+)?(?:\*\*|__)\s*(name|role|emoji)\s*(?::\s*(?:\*\*|__)|(?:\*\*|__)\s*:)\s*(.*)", re.IGNORECASE
)
_PLACEHOLDER = re.compile(r"[_*]\(.*\)[_*]|\[.*\]|\{\{.*\}\}|<.*>")
"""What a template has where nobody has filled in anything."""


@dataclass(frozen=True)
class FolderAgent:
    """An agent, and what in its folder has no effect here."""

    agent: Agent
    warnings: tuple[str, ...]


class _Config(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)

    name: Name | None = None
    description: str = ""
    model: str = ""
    tools: Annotated[tuple[str, ...], Field(max_length=200)] | None = None
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


def load_folder_agent(folder: Path) -> FolderAgent:
    """The agent of a folder of this shape; raises `AgentInvalid`."""
    about = read_text(folder / "IDENTITY.md") if (folder / "IDENTITY.md").exists() else ""
    identity = validated(_Identity, _labels(about, shown(folder / "IDENTITY.md")))
    config, warnings = _config(folder / CONFIG)
    tools, unknown = _tools(config.tools)
    warnings += [f"{folder.name}/{CONFIG}: tools: there is no tool {name[:80]!r} here" for name in unknown]
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
    )
    return FolderAgent(agent, tuple(warnings))


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
        raise AgentInvalid(f"{folder.name}: {', '.join(PARTS)} and IDENTITY.md say nothing")
    if not texts:
        return about.strip()
    opening = f"You are {identity.name}{f', {identity.role}' if identity.role else ''}." if identity.name else ""
    return joined(folder.name, [*([opening] if opening else []), *texts])


def _config(path: Path) -> tuple[_Config, list[str]]:
    """What the file says, and a warning for each key that has no effect."""
    if not path.exists():
        return _Config(), []
    written = read_values(path)
    values: dict[str, object] = {}
    lines: dict[str, int] = {}
    warnings = []
    for key, value in written.values.items():
        name = to_snake(key)
        if name not in _Config.model_fields:
            warnings.append(written.wrong(key, "this key has no effect here"))
        elif name in values:
            raise AgentInvalid(written.wrong(key, f"says the same as the key on line {lines[name]}; keep one of them"))
        elif value is not None:
            values[name], lines[name] = value, written.lines[key]
    return validated(_Config, Values(written.name, values, lines)), warnings


def _tools(names: tuple[str, ...] | None) -> tuple[tuple[str, ...], list[str]]:
    """The tools by our names, each once, and the names that mean none of them; all tools when nothing is said."""
    if names is None:
        return ALL_TOOLS, []
    known = {name: TOOL_NAMES.get(name.strip().lower().replace("-", "_")) for name in names}
    ours = dict.fromkeys(tool for tool in known.values() if tool is not None)
    return tuple(ours), [name for name, tool in known.items() if tool is None]


def _spoken(folder: str) -> str:
    return folder.replace("-", " ").replace("_", " ").strip().capitalize()[:100]
