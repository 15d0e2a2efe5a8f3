"""What tests need of a machine beside Python: where it is missing they are skipped, and the end of the run says so.

`DJINN_REQUIRE_DOCKER=1` and `DJINN_REQUIRE_BROWSER=1` make them fail instead; CI sets both.
"""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterable
from enum import StrEnum
from typing import Any, NoReturn

import pytest

from djinn.runner.base import RunnerUnavailable
from djinn.runner.docker import DockerRunner

PROPERTY = "missing"
"""By this name a report carries what was missing, also from a worker of pytest-xdist to its controller."""


class Need(StrEnum):
    """Things that a machine may lack, as the summary names them."""

    ENGINE = "a Docker engine"
    DOCKERD = "the program dockerd"
    BROWSER = "Chromium"
    CLOCK = "faketime"
    ROOT = "root"


HOW = {
    Need.ENGINE: "apt-get install docker.io, and start it",
    Need.DOCKERD: "apt-get install docker.io",
    Need.BROWSER: "apt-get install chromium",
    Need.CLOCK: "apt-get install faketime",
    Need.ROOT: "sudo",
}
"""How to get each on Debian."""
REQUIRED = {
    Need.ENGINE: "DJINN_REQUIRE_DOCKER",
    Need.DOCKERD: "DJINN_REQUIRE_DOCKER",
    Need.BROWSER: "DJINN_REQUIRE_BROWSER",
}


class Missing(pytest.skip.Exception):
    """A test is skipped, since the machine lacks something."""

    def __init__(self, need: Need, why: str) -> None:
        super().__init__(f"needs {need}: {why}" if why else f"needs {need}")
        self.need = need


def lacks(need: Need, why: str = "") -> NoReturn:
    """Skip the present test, or fail it where CI says that the thing must be there."""
    variable = REQUIRED.get(need, "")
    if variable and os.environ.get(variable) == "1":
        pytest.fail(f"{variable}=1, but there is not {need}: {why}")
    raise Missing(need, why)


def engine() -> str:
    """The description of the Docker engine that answers."""
    try:
        return DockerRunner("probe").ping()
    except RunnerUnavailable as exc:
        lacks(Need.ENGINE, str(exc))


def dockerd() -> str:
    """The program, for an engine of the test's own."""
    return shutil.which("dockerd") or lacks(Need.DOCKERD)


def browser() -> str:
    """The program."""
    return shutil.which("chromium") or lacks(Need.BROWSER)


def root() -> None:
    """The right to mount, and to give files away."""
    if os.getuid() != 0:
        lacks(Need.ROOT)


# --- for the hooks of tests/conftest.py ----------------------------------------------------------------------------
def note(call: pytest.CallInfo[Any], report: pytest.TestReport) -> None:
    """Write what was missing into the test's report."""
    if call.excinfo is not None and isinstance(call.excinfo.value, Missing):
        report.user_properties.append((PROPERTY, call.excinfo.value.need.value))


def summary(reports: Iterable[pytest.TestReport]) -> str:
    """One line: how many tests were skipped for which missing thing, and how to get it; empty when nothing was."""
    found = Counter(Need(value) for report in reports for name, value in report.user_properties if name == PROPERTY)
    return "; ".join(f"{count} skipped without {need} ({HOW[need]})" for need, count in found.most_common())
