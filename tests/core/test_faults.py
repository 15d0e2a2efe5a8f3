"""Crash points: their names, the variable that arms them, and what each action does to a process."""

from __future__ import annotations

import ast
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from djinn.core.faults import POINTS, VARIABLE, parse
from djinn.core.installation.paths import PROJECT

HIT = "from djinn.core.faults import fault; fault('claim.after'); print('went on')"


def calls() -> list[str]:
    """The name in every call of `fault()` in our code."""
    found = []
    for path in (PROJECT / "djinn").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "fault":
                (argument,) = node.args
                assert isinstance(argument, ast.Constant), f"{path}:{node.lineno}: a crash point's name is written out"
                found.append(str(argument.value))
    return found


def hit(home: Path, rules: str) -> subprocess.CompletedProcess[str]:
    """A process that passes one crash point."""
    environment = {**os.environ, "DJINN_HOME": str(home), VARIABLE: rules}
    command = [sys.executable, "-c", HIT]
    return subprocess.run(
        command, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=30, check=False
    )


def test_every_crash_point_is_in_exactly_one_place_of_the_code() -> None:
    assert sorted(calls()) == sorted(POINTS)


def test_there_are_enough_crash_points() -> None:
    assert len(POINTS) >= 24


def test_without_rules_a_crash_point_does_nothing(tmp_path: Path) -> None:
    assert hit(tmp_path, "").stdout == "went on\n"
    assert list(tmp_path.iterdir()) == []


def test_a_rule_fires_at_its_hit_alone_counted_over_processes(tmp_path: Path) -> None:
    codes = [hit(tmp_path, "claim.after=kill9@2").returncode for _ in range(4)]
    assert codes == [0, -signal.SIGKILL, 0, 0]


def test_the_hit_that_ends_a_process_is_on_the_disk_before(tmp_path: Path) -> None:
    hit(tmp_path, "claim.after=kill9")
    number, _, action = (tmp_path / "faults" / "claim.after").read_text().split()
    assert (number, action) == ("1", "kill9")


def test_two_rules_of_one_point_both_fire(tmp_path: Path) -> None:
    done = [hit(tmp_path, "claim.after=raise,claim.after=kill9@2") for _ in range(2)]
    assert "InjectedFault: injected at claim.after" in done[0].stderr
    assert done[1].returncode == -signal.SIGKILL


def test_a_point_without_a_rule_does_nothing_while_another_has_one(tmp_path: Path) -> None:
    assert hit(tmp_path, "claim.before=kill9").stdout == "went on\n"


def test_a_stopped_process_goes_on_when_it_is_told_to(tmp_path: Path) -> None:
    environment = {**os.environ, "DJINN_HOME": str(tmp_path), VARIABLE: "claim.after=stop:5"}
    with subprocess.Popen(
        [sys.executable, "-c", HIT], cwd=PROJECT, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        _, status = os.waitpid(process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        process.send_signal(signal.SIGCONT)
        assert process.communicate(timeout=20)[0] == "went on\n"


def test_a_sleeping_crash_point_goes_on(tmp_path: Path) -> None:
    done = hit(tmp_path, "claim.after=sleep:0.1")
    assert done.stdout == "went on\n"
    assert (tmp_path / "faults" / "claim.after").read_text().endswith(" sleep:0.1\n")


@pytest.mark.parametrize(
    ("rules", "problem"),
    [
        ("claim.ofter=kill9", "no crash point 'claim.ofter'"),
        ("claim.after=kill", "an action is"),
        ("claim.after=stop", "an action is"),
        ("claim.after=kill9:3", "an action is"),
        ("claim.after=kill9@0", "is not name=action"),
        ("claim.after", "is not name=action"),
    ],
)
def test_a_rule_that_would_never_fire_is_told(rules: str, problem: str) -> None:
    good, problems = parse(f"{rules},claim.before=kill9@3")
    assert [problem in text for text in problems] == [True]
    assert list(good) == ["claim.before"]


@pytest.mark.django_db
def test_a_wrong_rule_is_refused_at_start(tmp_path: Path) -> None:
    environment = {**os.environ, "DJINN_HOME": str(tmp_path), VARIABLE: "claim.ofter=kill9"}
    done = subprocess.run(
        [sys.executable, "manage.py", "check"], cwd=PROJECT, env=environment, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "djinn.E004" in done.stderr
