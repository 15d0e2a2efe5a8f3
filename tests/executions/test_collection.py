"""What ended long ago is removed, however hard one of them makes it."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from djinn.core.installation.paths import Installation
from djinn.executions.host import COLLECTED_AT_ONCE, MOST_SILENT, collect
from djinn.executions.lease import DatabaseClock
from djinn.executions.models import Execution
from djinn.executions.places import execution_directory, present_runner
from djinn.runner.base import RunnerUnavailable
from djinn.runner.stub import StubRunner
from djinn.runs.retention import remove_old_workspaces
from tests.make import HOST, begin, make_execution, step, work

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("home")]

DEEP = 3200
"""Directories inside each other: deeper than Python's stack, and longer than any path may be."""


@pytest.fixture(autouse=True)
def at_once(settings: Any) -> None:
    settings.HOST_NAME = HOST
    settings.KEEP_CONTAINER_SECONDS = 0.0


@pytest.fixture
def cleaned(home: Installation) -> Iterator[None]:
    """Afterwards nothing is left that pytest could not remove."""
    yield
    subprocess.run(["rm", "-rf", str(home.executions)], check=True, timeout=60)


def ended() -> Execution:
    """An execution that ended, with a directory."""
    execution = make_execution(host=HOST, status="exited", ended_at=DatabaseClock())
    execution_directory(execution).mkdir(parents=True)
    return execution


def nested(top: Path, name: bytes, mode: int) -> None:
    """Directories inside each other, made as a script would: one name at a time."""
    here = os.open(top, os.O_RDONLY)
    opened = []
    for number in range(DEEP):
        os.mkdir(name, dir_fd=here)
        inner = os.open(name, os.O_RDONLY, dir_fd=here)
        opened.append(here)
        here = inner
        if number > 50:
            os.close(opened.pop(0))
    for directory in (here, *reversed(opened)):
        os.fchmod(directory, mode)
        os.close(directory)


class Stubborn(StubRunner):
    """A runner that cannot remove some executions."""

    def __init__(self, root: Path, failing: set[str], error: Exception) -> None:
        super().__init__(root)
        self._failing, self._error = failing, error
        self.asked: list[str] = []

    def remove(self, execution: str) -> None:
        self.asked.append(execution)
        if execution in self._failing:
            raise self._error
        super().remove(execution)


@pytest.mark.usefixtures("cleaned")
@pytest.mark.parametrize(("name", "mode"), [(b"d", 0o700), (b"\xff\n\xfe", 0o700), (b"d", 0o000)])
def test_a_tree_of_any_depth_names_and_rights_is_removed_and_so_are_the_others(name: bytes, mode: int) -> None:
    deep, other = ended(), ended()
    nested(execution_directory(deep), name, mode)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1024, limit[1]))
    try:
        assert collect(present_runner()) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)
    assert not execution_directory(deep).exists()
    assert not execution_directory(other).exists()


@pytest.mark.parametrize("error", [RecursionError("deep"), OSError("busy"), KeyError("x"), RunnerUnavailable("busy")])
def test_one_that_cannot_be_removed_keeps_no_other(home: Installation, error: Exception) -> None:
    failing, other = ended(), ended()
    runner = Stubborn(home.executions / "stub", {failing.key}, error)
    assert collect(runner) == 1
    assert not execution_directory(other).exists()
    assert [row.pk for row in Execution.objects.filter(collected_at=None)] == [failing.pk]


def test_many_that_cannot_be_removed_do_not_come_first_for_ever(home: Installation) -> None:
    failing = {ended().key for _ in range(COLLECTED_AT_ONCE)}
    other = ended()
    runner = Stubborn(home.executions / "stub", failing, OSError("busy"))
    assert (collect(runner), collect(runner)) == (0, 1)
    assert not execution_directory(other).exists()


def test_what_could_not_be_removed_is_tried_again_later(home: Installation) -> None:
    failing = ended()
    assert collect(Stubborn(home.executions / "stub", {failing.key}, OSError("busy"))) == 0
    assert collect(present_runner()) == 0
    Execution.objects.update(collect_failed_at="2026-01-01T00:00Z")
    assert collect(present_runner()) == 1


def test_an_engine_that_says_nothing_is_not_asked_about_each(home: Installation) -> None:
    keys = {ended().key for _ in range(MOST_SILENT + 4)}
    runner = Stubborn(home.executions / "stub", keys, RunnerUnavailable("nobody listens"))
    collect(runner)
    assert len(runner.asked) == MOST_SILENT


def test_a_workspace_that_cannot_be_removed_keeps_no_other(home: Installation, settings: Any) -> None:
    runs = [work(begin(step("A"))) for _ in range(2)]
    settings.KEEP_WORKSPACE_SECONDS = -60.0
    places = [home.workspaces / run.stream for run in runs]
    for place in places:
        (place / "tree").mkdir(parents=True, exist_ok=True)
    (places[0] / "lock").unlink(missing_ok=True)
    (places[0] / "lock").mkdir()  # the lock cannot be opened
    assert remove_old_workspaces() == 1
    assert [place.exists() for place in places] == [True, False]
