"""All agents of the folder, read again when a file changed: an operator adds a folder and needs no restart."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from django.conf import settings

from djinn.agents.definition import Agent, Loaded, load_agent
from djinn.agents.errors import AgentInvalid
from djinn.agents.folders import CONFIG, MARKS, PARTS, is_folder_agent, load_folder_agent
from djinn.agents.fragments import SHARED
from djinn.core.errors import NotFound
from djinn.documents.problems import Problem
from djinn.documents.report import suggestion
from djinn.documents.words import IDENTIFIER_RULE, is_identifier

Fingerprint = tuple[tuple[str, int, int, int], ...]

OWN = "agent.yaml"
READ = frozenset({OWN, "persona.md", CONFIG, *MARKS, *PARTS})
MEANT = ("agent.yml", "agent.json", "persona.md")
"""Files of a folder that was meant to be an agent."""


@dataclass(frozen=True)
class Registry:
    """The agents that can be used, what is wrong with the others, and what has no effect, each by folder."""

    agents: Mapping[str, Agent] = field(default_factory=dict)
    problems: Mapping[str, tuple[Problem, ...]] = field(default_factory=dict)
    warnings: Mapping[str, tuple[Problem, ...]] = field(default_factory=dict)

    @property
    def broken(self) -> dict[str, str]:
        """What is wrong with each agent that cannot be used, in words."""
        return {name: "; ".join(map(str, found)) for name, found in self.problems.items()}


_lock = threading.Lock()
_cache: dict[Path, tuple[Fingerprint, Registry]] = {}


def load_registry(directory: Path | None = None) -> Registry:
    """The registry over a folder, by default the installation's. A broken agent never hides the others."""
    place = directory or settings.AGENTS_DIRECTORY
    fingerprint = _fingerprint(place)
    with _lock:
        cached = _cache.get(place)
        if cached is None or cached[0] != fingerprint:
            cached = _cache[place] = (fingerprint, _load(place))
        return cached[1]


def find_agent(folder: str) -> Agent:
    """The agent of that folder; raises `NotFound`, or `AgentInvalid` when it is there but cannot be used."""
    registry = load_registry()
    if folder in registry.agents:
        return registry.agents[folder]
    if folder in registry.problems:
        raise AgentInvalid(*registry.problems[folder])
    raise NotFound(f"There is no agent {folder!r}{suggestion(folder, registry.agents)}.")


def _load(place: Path) -> Registry:
    agents: dict[str, Agent] = {}
    problems: dict[str, tuple[Problem, ...]] = {}
    warnings: dict[str, tuple[Problem, ...]] = {}
    for folder in sorted(path for path in place.glob("*") if path.name[0] not in "._"):
        try:
            found = _read(folder)
        except AgentInvalid as exc:
            problems[folder.name] = _below(place, exc.problems)
            continue
        if found is not None:
            agents[folder.name] = found.agent
            if found.warnings:
                warnings[folder.name] = _below(place, found.warnings)
    return Registry(agents, problems, warnings)


def _below(place: Path, problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """The problems with the folder of agents before their files."""
    return tuple(replace(problem, file=f"{place.name}/{problem.file}") for problem in problems)


def _read(folder: Path) -> Loaded | None:
    """The agent of a folder, in whichever shape; None when the folder is not one."""
    is_own = (folder / OWN).exists()
    if not is_own and not is_folder_agent(folder):
        _refuse_what_was_meant(folder)
        return None
    if not is_identifier(folder.name):
        what = f"the folder's name {folder.name[:80]!r} cannot be an agent's id"
        raise AgentInvalid(Problem(folder.name, 1, f"{what}, which is {IDENTIFIER_RULE}; rename it"))
    if not is_own:
        return load_folder_agent(folder)
    loaded = load_agent(folder)
    unread = [name for name in (*MARKS, CONFIG) if (folder / name).exists()]
    notes = [
        Problem(f"{folder.name}/{name}", 1, f"not read, because {OWN} is there", severity="warning") for name in unread
    ]
    return Loaded(loaded.agent, (*loaded.warnings, *notes))


def _refuse_what_was_meant(folder: Path) -> None:
    """Raise `AgentInvalid` for a folder that is no agent, but has a file which only an agent has."""
    meant = [name for name in MEANT if (folder / name).exists()]
    if meant:
        message = f"there is no {OWN} in this folder, only {', '.join(meant)}; an agent needs {OWN} or one of "
        raise AgentInvalid(Problem(folder.name, 1, message + ", ".join(MARKS)))


def _fingerprint(place: Path) -> Fingerprint:
    found = []
    for path in sorted(place.glob("*/*")):
        if path.name in READ or path.name in MEANT or path.parent.name == SHARED:
            with suppress(FileNotFoundError):  # removed since the folder was listed
                status = path.stat()
                found.append((str(path), status.st_mtime_ns, status.st_ctime_ns, status.st_size))
    return tuple(found)
