"""Fixtures for tests of more than one folder."""

from __future__ import annotations

import shutil
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from pytest_django import Settings

from djinn.core.installation.paths import Installation
from djinn.executions import places
from tests import needs

# How long it takes to make an example says more about the machine's other work than about the test.
hypothesis.settings.register_profile("djinn", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("djinn")


ENGINE_FIXTURES = {"docker_engine", "image"}
"""A test that uses one of them needs an engine, and has the marker that says so."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if ENGINE_FIXTURES & set(getattr(item, "fixturenames", ())):
            item.add_marker("docker")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> Generator[None, Any, None]:
    outcome = yield
    needs.note(call, outcome.get_result())


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("root"):
        needs.root()
    if item.get_closest_marker("dockerd"):
        needs.dockerd()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if line := needs.summary(terminalreporter.stats.get("skipped", [])):
        terminalreporter.write_line(line, yellow=True)


@pytest.fixture
def home(tmp_path: Path, settings: Settings) -> Iterator[Installation]:
    """An installation of the test's own: row numbers, and so directories, begin anew in each worker of xdist."""
    installation = Installation(tmp_path / "var")
    installation.make_directories()
    settings.INSTALLATION = installation
    settings.PIPELINES_DIRECTORY = tmp_path / "pipelines"
    settings.PIPELINES_DIRECTORY.mkdir()
    places._chosen.cache_clear()
    yield installation
    places._chosen.cache_clear()
    shutil.rmtree(installation.sockets, ignore_errors=True)  # elsewhere when the test's own path is long
