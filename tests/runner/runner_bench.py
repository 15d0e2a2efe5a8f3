"""A runner with a place where it can run scripts, and the runtime that stands in for Djinn's own."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from djinn.runner.base import ContainerSpec, ContainerState, Limits, Network, Phase, Runner

WAIT_SECONDS = 60.0

# The stand-in keeps the guard's promise, then does what the test wrote down for it.
STAND_IN = """
import os, sys
directory = os.path.join(sys.argv[1], "scratch")
try:
    os.mkdir(os.path.join(directory, "started"))
except FileExistsError:
    sys.exit(97)
with open(os.path.join(directory, "script.py")) as file:
    code = compile(file.read(), "script.py", "exec")
exec(code, {"directory": directory})
"""


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Poll until the condition holds; fail with its description when it does not in time."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"not within {WAIT_SECONDS} s: {what}")
        time.sleep(0.02)


def nest(tree: Path, depth: int) -> None:
    """Directories inside each other, made as an agent would: no path is longer than one name."""
    here = os.open(tree, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=here)
        inner = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(here)


@dataclass(frozen=True)
class Bench:
    """A runner with a place where it can run scripts."""

    runner: Runner
    root: Path
    runtime_directory: Path
    image: str

    def spec(
        self,
        script: str = "",
        *,
        execution: str = "",
        image: str = "",
        network: Network = "none",
        limits: Limits | None = None,
        environment: dict[str, str] | None = None,
    ) -> ContainerSpec:
        """An execution whose runtime is the Python code `script`; `directory` in it is the execution's scratch."""
        name = execution or f"x{uuid.uuid4().hex[:10]}"
        places = {kind: self.root / name / kind for kind in ("workspace", "execution", "gateway")}
        for place in places.values():
            place.mkdir(parents=True)
            if self.runner.owner():
                os.chown(place, *self.runner.owner())
        scratch = places["execution"] / "scratch"
        scratch.mkdir()
        (places["execution"] / "journal.ndjson").touch()
        if self.runner.owner():
            os.chown(scratch, *self.runner.owner())
        (scratch / "script.py").write_text(script)
        return ContainerSpec(
            execution=name,
            image=image or self.image,
            workspace=places["workspace"],
            execution_directory=places["execution"],
            gateway_directory=places["gateway"],
            runtime_directory=self.runtime_directory,
            deadline_seconds=60,
            network=network,
            limits=limits or Limits(),
            environment=environment or {},
        )

    def phase(self, spec: ContainerSpec) -> Phase:
        return self.runner.inspect(spec.execution).phase

    def run(self, spec: ContainerSpec) -> ContainerState:
        """Start it and wait for its end."""
        self.runner.start(spec)
        return self.ended(spec)

    def ended(self, spec: ContainerSpec) -> ContainerState:
        wait_until(lambda: self.phase(spec) is Phase.EXITED, f"{spec.execution} has exited")
        return self.runner.inspect(spec.execution)

    def wait_for_file(self, spec: ContainerSpec, name: str) -> str:
        """The text of a file that the script writes into its execution directory (by rename, or with one write)."""
        path = spec.execution_directory / "scratch" / name
        wait_until(lambda: path.exists() and path.stat().st_size > 0, f"{name} is written")
        return path.read_text()

    def answer(self, script: str, *, limits: Limits | None = None) -> str:
        """What the script left in the file `answer`."""
        spec = self.spec(script, limits=limits)
        state = self.run(spec)
        path = spec.execution_directory / "scratch" / "answer"
        assert path.exists(), f"no answer, {state}"
        return path.read_text()
