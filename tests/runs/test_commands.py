"""`manage.py run` and what `manage.py demo` checks before it says that all is well."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection

from djinn.core.installation.paths import PROJECT
from djinn.runs.management.commands.demo import PACKAGE, check_tests_fail, check_tests_passed
from djinn.runs.models import Run
from djinn.runs.selectors import run_view
from tests.make import begin, played, step, succeeded, work, write_pipeline

database = pytest.mark.django_db(transaction=True)
own_home = pytest.mark.usefixtures("home")


def test_without_a_stack_the_command_says_how_to_start_one(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in {"DATABASE_URL", "REDIS_URL"}}
    done = subprocess.run(
        [sys.executable, "manage.py", "run", "demo"],
        cwd=PROJECT,
        env={**environment, "DJINN_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.strip() == (
        "CommandError: The database does not answer. Is Djinn up? Start it with `make up` in another terminal."
    )


@database
@own_home
def test_a_run_is_started_with_inputs_and_its_page_is_told(capsys: Any) -> None:
    write_pipeline(step("A"), inputs={"count": {"type": "integer"}})
    call_command("run", "work", input=["count=3"])
    run = Run.objects.get()
    assert run.inputs == {"count": 3}
    assert f"/runs/{run.pk}/" in capsys.readouterr().out


@database
@own_home
def test_a_run_is_started_while_the_broker_is_away(settings: Any) -> None:
    write_pipeline(step("A"))
    database_url = os.environ["DATABASE_URL"].replace("/djinn?", f"/{connection.settings_dict['NAME']}?")
    done = subprocess.run(
        [sys.executable, "manage.py", "run", "work"],
        cwd=PROJECT,
        env={
            **os.environ,
            "DATABASE_URL": database_url,
            "REDIS_URL": "unix:///nonexistent/redis.sock",
            "DJINN_PIPELINES": str(settings.PIPELINES_DIRECTORY),
        },
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "doorbell_silent" in done.stderr
    assert "Traceback" not in done.stderr
    assert Run.objects.get().status == "queued"


@database
@own_home
@pytest.mark.parametrize("pair", ["count", "=3", ""])
def test_an_input_that_is_no_pair_is_refused(pair: str) -> None:
    write_pipeline(step("A"))
    with pytest.raises(CommandError, match="NAME=VALUE"):
        call_command("run", "work", input=[pair])


@database
@own_home
def test_inputs_that_do_not_fit_are_told_by_name() -> None:
    write_pipeline(step("A"), inputs={"count": {"type": "integer"}})
    with pytest.raises(CommandError, match="count: "):
        call_command("run", "work", input=["count=many"])


def test_the_shipped_package_has_a_failing_test() -> None:
    check_tests_fail(PROJECT / "pipelines" / PACKAGE)


def test_a_package_whose_tests_pass_is_nothing_to_demonstrate(tmp_path: Path) -> None:
    tests = tmp_path / "tests"
    tests.mkdir()
    (tests / "__init__.py").write_text("")
    (tests / "test_x.py").write_text("import unittest\n\nclass T(unittest.TestCase):\n    def test(self): pass\n")
    with pytest.raises(CommandError, match="pass already"):
        check_tests_fail(tmp_path)


PASSED = step("TEST", played(finished=succeeded(TESTS="pass")), outputs=["TESTS"])


def checked(*steps: dict[str, Any], tested: str = "b" * 40, left: str = "b" * 40) -> None:
    """Check a run of these steps, whose TEST ran on the snapshot `tested` and whose last step left `left`."""
    run = begin(*steps)
    work(run)
    executions = [row.execution for row in run.step_runs.select_related("execution").order_by("number")]
    for number, execution in enumerate(executions, 1):
        assert execution is not None
        execution.origin_snapshot = "a" * 40
        execution.result_snapshot = left if number == len(executions) else tested
    view = run_view(run)
    for row, execution in zip(view.steps, executions, strict=True):
        row.row.execution = execution
    check_tests_passed(view)


@database
@own_home
def test_a_run_whose_tests_passed_on_what_it_left_is_well() -> None:
    checked(PASSED, step("REVIEW"))


@database
@own_home
def test_a_run_without_its_tests_having_passed_is_not() -> None:
    with pytest.raises(CommandError, match="without its tests"):
        checked(step("TEST", played(finished=succeeded(TESTS="fail")), outputs=["TESTS"]), step("REVIEW"))


@database
@own_home
def test_a_run_without_the_step_test_is_not() -> None:
    with pytest.raises(CommandError, match="without its tests"):
        checked(step("REVIEW"))


@database
@own_home
def test_a_run_that_changed_something_behind_its_tests_is_not() -> None:
    with pytest.raises(CommandError, match="not what its tests ran on"):
        checked(PASSED, step("REVIEW"), left="c" * 40)


@database
@own_home
def test_a_run_that_changed_nothing_is_not() -> None:
    with pytest.raises(CommandError, match="changed nothing"):
        checked(PASSED, step("REVIEW"), tested="a" * 40, left="a" * 40)
