"""Texts that several personas share: `agents/_shared/<name>.md`, named by the key `include` of an agent."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from djinn.agents.errors import AgentInvalid
from djinn.agents.files import Values, read_text
from djinn.documents.report import suggestion

SHARED = "_shared"
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


def read_fragments(agents: Path, names: Sequence[str], asked: Values) -> list[str]:
    """The texts of these fragments, in this order; raises `AgentInvalid`, which says where they were asked for."""
    folder = agents / SHARED
    texts = []
    for number, name in enumerate(names):
        key = f"include.{number}"
        if not NAME.fullmatch(name):
            raise AgentInvalid(
                asked.problem(key, f"{name[:80]!r} is no name of a fragment: a-z, 0-9, _ and -, no path")
            )
        if name in names[:number]:
            raise AgentInvalid(asked.problem(key, f"{name!r} is there twice"))
        texts.append(_read(folder, name, asked, key))
    return texts


def _read(folder: Path, name: str, asked: Values, key: str) -> str:
    path = folder / f"{name}.md"
    if not path.exists():
        raise AgentInvalid(asked.problem(key, f"there is no fragment {SHARED}/{name}.md{_hint(folder, name)}"))
    if not path.resolve().is_relative_to(folder.resolve()):
        raise AgentInvalid(asked.problem(key, f"{SHARED}/{name}.md leads out of {SHARED}/"))
    text = read_text(path).strip()
    if not text:
        raise AgentInvalid(asked.problem(key, f"the fragment {SHARED}/{name}.md is empty"))
    return text


def _hint(folder: Path, name: str) -> str:
    return suggestion(name, [path.stem for path in folder.glob("*.md")])
