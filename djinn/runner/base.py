"""The contract of a runner: what the engine of executions may ask of whatever runs them.

A container is named by its execution; every verb is idempotent and may be repeated after a crash at any moment. No verb
tells how an execution ended: the journal's last record does (see `runtime_image.djinn_runtime.protocol`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Literal, Protocol

from djinn.runner.processes import Identity

Network = Literal["none", "bridge"]


class RunnerError(Exception):
    """A runner could not do what it was asked. `permanent` tells whether asking again can help."""

    permanent = False
    reason = "runner"


class RunnerUnavailable(RunnerError):
    """The engine does not answer; it may be back later."""


class ImageMissing(RunnerError):
    """The image does not exist and cannot be fetched."""

    permanent = True
    reason = "image"


class StartRefused(RunnerError):
    """The container can never be started: the engine refuses its specification, or lost it half made."""

    permanent = True
    reason = "lost"


class SpecificationRefused(RunnerError):
    """The engine refuses this specification; another try with the same one is refused too."""

    permanent = True
    reason = "rejected"


class Phase(StrEnum):
    """Where a container is in its life."""

    ABSENT = "absent"
    CREATED = "created"
    RUNNING = "running"
    EXITED = "exited"


@dataclass(frozen=True)
class ContainerState:
    """What `inspect` saw. `exit_code` is set when EXITED, though it may be 255 after the engine itself died.

    `out_of_memory` tells that the kernel has killed a process of it for want of memory. Of one that has exited the
    engine tells that late, and not always.
    """

    phase: Phase
    exit_code: int | None = None
    out_of_memory: bool = False


@dataclass(frozen=True)
class Limits:
    """Upper bounds of one container. A process that passes one gets an error or is killed; the host is unharmed."""

    cpus: float = 1.0
    memory_bytes: int = 1024**3
    pids: int = 256
    open_files: int = 4096
    file_bytes: int = 2 * 1024**3
    tmp_bytes: int = 256 * 1024**2


@dataclass(frozen=True)
class ContainerSpec:
    """One container to start. Paths are the host's; what they become inside is the runner's business."""

    execution: str
    image: str
    workspace: Path
    execution_directory: Path
    gateway_directory: Path
    runtime_directory: Path
    deadline_seconds: int
    network: Network = "none"
    limits: Limits = field(default_factory=Limits)
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class InsidePaths:
    """Where a container of this runner sees its three directories; the brief is written with these."""

    workspace: str
    execution_directory: str
    gateway_directory: str


class Runner(Protocol):
    """Starts, finds, stops and removes containers."""

    name: str
    isolates: bool

    def ping(self) -> str:
        """A one-line description of the engine; raises `RunnerUnavailable` when it does not answer."""

    def paths(self, spec: ContainerSpec) -> InsidePaths:
        """Where the container of `spec` will see its directories."""

    def owner(self) -> tuple[int, int] | None:
        """The uid and gid that must own what a container writes, or None when the present owner is right."""

    def resolve_image(self, reference: str) -> str:
        """The immutable id of an image; raises `ImageMissing` or `RunnerUnavailable`."""

    def start(self, spec: ContainerSpec) -> None:
        """Create the container unless it exists, start it unless it was started.

        Raises `RunnerUnavailable`, `ImageMissing`, `SpecificationRefused`, or `StartRefused` when the engine cannot
        start a container that it holds as created: whether it ever ran, only its journal can tell.
        """

    def inspect(self, execution: str) -> ContainerState:
        """Where the container is now; raises `RunnerUnavailable`."""

    def process(self, execution: str) -> Identity | None:
        """The process that all others of the execution descend from, when it runs and this host's /proc shows it.

        Raises `RunnerUnavailable`.
        """

    def stop(self, execution: str, grace_seconds: float) -> None:
        """SIGTERM, then SIGKILL after the grace; a container that is gone or never was is no error."""

    def remove(self, execution: str) -> None:
        """Kill and forget the container; absent is no error."""

    def executions(self) -> dict[str, Phase]:
        """Every container of this installation, by execution."""
