"""All agents of the folder, read again when a file changed: an operator adds a folder and needs no restart."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from django.conf import settings

from djinn.agents.definition import Agent, AgentInvalid, load_agent
from djinn.core.errors import NotFound

Fingerprint = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class Registry:
    """The agents that can be used, and what is wrong with the others, by folder."""

    agents: Mapping[str, Agent] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)


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
    agents, problems = {}, {}
    for path in sorted(place.glob("*/agent.yaml")):
        try:
            agents[path.parent.name] = load_agent(path.parent)
        except AgentInvalid as exc:
            problems[path.parent.name] = exc.message
    return Registry(agents, problems)


def _fingerprint(place: Path) -> Fingerprint:
    found = []
    for path in sorted(place.glob("*/*")):
        if path.name in {"agent.yaml", "persona.md"}:
            with suppress(FileNotFoundError):  # removed since the folder was listed
                status = path.stat()
                found.append((str(path), status.st_mtime_ns, status.st_size))
    return tuple(found)
