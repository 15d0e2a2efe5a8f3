"""Real containers and processes for tests of executions."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator

import pytest
from pytest_django import Settings

from djinn.core.installation.paths import PROJECT, Installation
from djinn.executions.places import present_runner
from djinn.runner.base import Runner, RunnerUnavailable
from djinn.runner.docker import DockerRunner
from djinn.runner.image import ensure_image


@pytest.fixture(scope="session")
def image() -> str:
    try:
        DockerRunner("probe").ping()
    except RunnerUnavailable as exc:
        if os.environ.get("DJINN_REQUIRE_DOCKER") == "1":
            pytest.fail(f"DJINN_REQUIRE_DOCKER=1, but {exc}")
        pytest.skip(f"needs a Docker engine: {exc}")
    return ensure_image(context=PROJECT / "runtime_image", tag="djinn-runtime:test", log=print)


def chosen(kind: str, settings: Settings) -> Runner:
    settings.RUNNER, settings.INSTALLATION_NAME = kind, f"t{uuid.uuid4().hex[:8]}"
    return present_runner()


@pytest.fixture
def docker(home: Installation, image: str, settings: Settings) -> Iterator[Runner]:
    runner = chosen("docker", settings)
    yield runner
    for key in runner.executions():
        runner.remove(key)


@pytest.fixture
def process(home: Installation, settings: Settings) -> Iterator[Runner]:
    runner = chosen("process", settings)
    yield runner
    for key in runner.executions():
        runner.remove(key)
