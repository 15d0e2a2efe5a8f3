"""Fixtures for tests of more than one folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from pytest_django import Settings

from djinn.core.installation.paths import Installation
from djinn.executions import places

# How long it takes to make an example says more about the machine's other work than about the test.
hypothesis.settings.register_profile("djinn", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("djinn")


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
