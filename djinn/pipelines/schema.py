"""A pipeline as the rest of Djinn sees it: frozen dataclasses, and their JSON form that a run keeps."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, cast

from pydantic import JsonValue, TypeAdapter

JSON = JsonValue
StepKind = Literal["agent", "run"]
InputType = Literal["string", "text", "integer", "number", "boolean"]
Network = Literal["none", "bridge"]


@dataclass(frozen=True)
class Retries:
    """How often a step is tried again after a failure that is charged to it."""

    max: int = 1
    """Tries after the first one; 0 is never."""
    backoff_seconds: float = 0.0
    """The wait before the first retry; it doubles each time."""
    on: tuple[str, ...] = ()
    """The reasons that are tried again; empty is every retryable one."""


@dataclass(frozen=True)
class Resources:
    """Upper bounds of the step's container."""

    cpus: float = 1.0
    memory_mb: int = 1024
    pids: int = 256


@dataclass(frozen=True)
class Route:
    """What follows a matched `onResult` key. Without a `goto` the step routes on as if no key had matched."""

    goto: str | None


@dataclass(frozen=True)
class Step:
    """One step. `input` is the template of an agent's prompt, `run` the template of a shell script."""

    id: str
    kind: StepKind
    agent: str = ""
    description: str = ""
    input: str = ""
    run: str = ""
    outputs: tuple[str, ...] = ()
    on_complete: str | None = None
    on_result: Mapping[str, Route] = field(default_factory=dict)
    retries: Retries = Retries()
    timeout_seconds: int = 3600
    max_visits: int = 10
    model: str = ""
    """Empty is the agent's own model."""
    max_turns: int = 60
    max_output_tokens: int | None = None
    temperature: float | None = None
    image: str = ""
    """Empty is the installation's image."""
    network: Network = "none"
    resources: Resources = Resources()

    @property
    def is_routed(self) -> bool:
        """Whether the step says itself what follows it."""
        return self.on_complete is not None or bool(self.on_result)


@dataclass(frozen=True)
class Input:
    """A value that a run is started with."""

    name: str
    type: InputType = "string"
    default: JSON = None
    required: bool = True
    description: str = ""
    choices: tuple[JSON, ...] = ()


@dataclass(frozen=True)
class WorkspaceSource:
    """What the workspace is cloned from; both are templates, and empty is a fresh workspace."""

    repository: str = ""
    ref: str = ""


@dataclass(frozen=True)
class AgentReference:
    """An agent that the file itself declares."""

    id: str
    name: str = ""
    persona: str = ""
    model: str = ""
    tools: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pipeline:
    """A whole pipeline; `steps` is in the order in which a pipeline without routing runs them."""

    id: str
    name: str
    version: str
    description: str
    inputs: tuple[Input, ...]
    workspace: WorkspaceSource
    steps: tuple[Step, ...]
    agents: Mapping[str, AgentReference] = field(default_factory=dict)

    def step(self, step_id: str) -> Step:
        """The step of that id; raises `LookupError` when there is none."""
        for step in self.steps:
            if step.id == step_id:
                return step
        raise LookupError(f"pipeline {self.id!r} has no step {step_id!r}")

    @property
    def first_step(self) -> Step:
        return self.steps[0]

    @property
    def is_routed(self) -> bool:
        """Whether any step says itself what follows it."""
        return any(step.is_routed for step in self.steps)

    def following(self, step_id: str) -> Step | None:
        """The next step in order, None after the last one."""
        ids = [step.id for step in self.steps]
        rest = self.steps[ids.index(step_id) + 1 :]
        return rest[0] if rest else None


_ADAPTER: TypeAdapter[Pipeline] = TypeAdapter(Pipeline)


def to_snapshot(pipeline: Pipeline) -> dict[str, JSON]:
    """The pipeline as JSON-safe data; `from_snapshot` gives an equal pipeline back."""
    return cast("dict[str, JSON]", _ADAPTER.dump_python(pipeline, mode="json"))


def from_snapshot(data: Mapping[str, JSON]) -> Pipeline:
    """The pipeline of a snapshot; raises `ValueError` when the data is not one."""
    return _ADAPTER.validate_python(data)


def digest(pipeline: Pipeline) -> str:
    """The SHA-256 of the canonical snapshot, in hex: equal pipelines have equal digests."""
    text = json.dumps(to_snapshot(pipeline), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
