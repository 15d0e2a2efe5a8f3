"""Which runner this machine gets."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from djinn.runner.base import Runner, RunnerUnavailable
from djinn.runner.docker import DockerRunner
from djinn.runner.process import ProcessRunner
from djinn.runner.stub import StubRunner

Kind = Literal["auto", "docker", "process", "stub"]


def choose_runner(kind: Kind, *, installation: str, root: Path) -> Runner:
    """The runner of that kind; "auto" is Docker when its engine answers, else plain processes, which do not isolate.

    `installation` keeps apart the containers of several installations on one engine; `root` keeps the state of the
    runners that have no engine.
    """
    if kind == "process":
        return ProcessRunner(root / "process")
    if kind == "stub":
        return StubRunner(root / "stub")
    docker = DockerRunner(installation)
    if kind == "auto":
        try:
            docker.ping()
        except RunnerUnavailable:
            return ProcessRunner(root / "process")
    return docker
