"""What the end of a run of tests says about what was skipped."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from djinn.core.installation.paths import PROJECT

TESTS = """
from tests import needs

def test_a_container():
    needs.engine()

def test_another_container():
    needs.engine()

def test_a_page():
    needs.browser()

def test_a_sum():
    assert 1 + 1 == 2
"""


@pytest.mark.parametrize("workers", ["0", "2"])
def test_what_was_skipped_for_which_missing_thing_stands_at_the_end(tmp_path: Path, workers: str) -> None:
    done = _run(tmp_path, workers)
    line = (
        "2 skipped without a Docker engine (apt-get install docker.io, and start it); "
        "1 skipped without Chromium (apt-get install chromium)"
    )
    assert line in done.stdout.splitlines()
    assert done.returncode == 0


def test_where_a_thing_is_required_its_tests_fail(tmp_path: Path) -> None:
    done = _run(tmp_path, "0", DJINN_REQUIRE_DOCKER="1")
    assert "2 failed, 1 passed, 1 skipped" in done.stdout


def _run(folder: Path, workers: str, **more: str) -> subprocess.CompletedProcess[str]:
    """The tests above on a machine without an engine and without Chromium."""
    (folder / "test_machine.py").write_text(TESTS)
    (folder / "conftest.py").write_text((PROJECT / "tests" / "conftest.py").read_text())
    left_out = {"DJINN_REQUIRE_DOCKER", "DJINN_REQUIRE_BROWSER", "PYTEST_XDIST_WORKER", "PYTEST_ADDOPTS"}
    bare = {name: value for name, value in os.environ.items() if name not in left_out}
    bare |= {"PATH": str(folder), "DOCKER_HOST": f"unix://{folder}/nobody.sock", "PYTHONPATH": str(PROJECT), **more}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-c",
        str(PROJECT / "pyproject.toml"),
        "-p",
        "no:cacheprovider",
        "-n",
        workers,
    ]
    return subprocess.run(
        [*command, str(folder)], cwd=PROJECT, env=bare, capture_output=True, text=True, timeout=150, check=False
    )
