"""What the tests of the runners share: an engine to ask, an image, and a bench for each runner."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from runner_bench import STAND_IN, Bench

from djinn.runner.docker import DockerRunner
from djinn.runner.image import ensure_image
from djinn.runner.process import ProcessRunner
from tests import needs

REPOSITORY = Path(__file__).parents[2]
TEST_IMAGE = "djinn-runtime:test"


@pytest.fixture(scope="session")
def docker_engine() -> str:
    """The engine's description. Without an engine the test is skipped, or fails when CI says that there must be one."""
    return needs.engine()


@pytest.fixture(scope="session")
def runtime_image(docker_engine: str) -> str:
    """The id of the image that executions use, built by the code under test."""
    return ensure_image(context=REPOSITORY / "runtime_image", tag=TEST_IMAGE, log=print)


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    """A folder with a package `djinn_runtime` that runs the test's script."""
    package = tmp_path / "runtime" / "djinn_runtime"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text(STAND_IN)
    return package.parent


@pytest.fixture
def docker_bench(runtime_image: str, stand_in: Path, tmp_path: Path) -> Iterator[Bench]:
    runner = DockerRunner(f"t{uuid.uuid4().hex[:8]}")
    yield Bench(runner, tmp_path / "places", stand_in, runtime_image)
    for execution in runner.executions():
        runner.remove(execution)


@pytest.fixture
def process_bench(stand_in: Path, tmp_path: Path) -> Iterator[Bench]:
    runner = ProcessRunner(tmp_path / "state")
    yield Bench(runner, tmp_path / "places", stand_in, "none")
    for execution in runner.executions():
        runner.remove(execution)


@pytest.fixture(params=["docker", "process"])
def bench(request: pytest.FixtureRequest) -> Bench:
    """Each runner that runs real processes, one after the other."""
    found: Bench = request.getfixturevalue(f"{request.param}_bench")
    return found
