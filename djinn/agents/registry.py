"""All agents of the folder, read again when a file changed: an operator adds a folder and needs no restart."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from django.conf import settings

from djinn.agents.definition import Agent, load_agent
from djinn.agents.errors import AgentInvalid
from djinn.agents.folders import CONFIG, MARKS, PARTS, FolderAgent, is_folder_agent, load_folder_agent
from djinn.agents.fragments import SHARED
from djinn.core.errors import NotFound

Fingerprint = tuple[tuple[str, int, int, int], ...]

OWN = "agent.yaml"
READ = frozenset({OWN, "persona.md", CONFIG, *MARKS, *PARTS})


@dataclass(frozen=True)
class Registry:
    """The agents that can be used, what is wrong with the others, and what has no effect, each by folder."""

    agents: Mapping[str, Agent] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)
    warnings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


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
        raise AgentInvalid(registry.problems[folder])
    raise NotFound(f"There is no agent {folder!r}.")


def _load(place: Path) -> Registry:
    agents, problems, warnings = {}, {}, {}
    for folder in sorted(path for path in place.glob("*") if path.name[0] not in "._"):
        try:
            found = _read(folder)
        except AgentInvalid as exc:
            problems[folder.name] = exc.message
            continue
        if found is not None:
            agents[folder.name] = found.agent
            if found.warnings:
                warnings[folder.name] = found.warnings
    return Registry(agents, problems, warnings)


def _read(folder: Path) -> FolderAgent | None:
    """The agent of a folder, in whichever shape; None when the folder is not one."""
    if not (folder / OWN).exists():
        return load_folder_agent(folder) if is_folder_agent(folder) else None
    unread = [name for name in (*MARKS, CONFIG) if (folder / name).exists()]
    warnings = (f"{folder.name}/{', '.join(unread)}: not read, because {OWN} is there",) if unread else ()
    return FolderAgent(load_agent(folder), warnings)


def _fingerprint(place: Path) -> Fingerprint:
    found = []
    for path in sorted(place.glob("*/*")):
        if path.name in READ or path.parent.name == SHARED:
            with suppress(FileNotFoundError):  # removed since the folder was listed
                status = path.stat()
                found.append((str(path), status.st_mtime_ns, status.st_ctime_ns, status.st_size))
    return tuple(found)
