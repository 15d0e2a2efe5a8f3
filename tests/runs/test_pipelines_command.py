"""`manage.py pipelines`: check, simulate, schema; without a database and without a running installation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from djinn.core.installation.paths import PROJECT

GOOD = "steps:\n  - {id: A, agent: smith, input: x, outputs: [V]}\n  - {id: B, run: x}\n"
BAD = "steps:\n  - {id: A, agent: nobody, input: x}\n  - id: B\n    rum: x\n"
HALF = """\
steps:
  - {id: A, run: x, outputs: [V]}
  - id: B
    run: x
    needs: [A]
    when: V == 'x' and V == 'y'
"""
SMITH = {"IDENTITY.md": "**Name:** Smith\n**Role:** Engineer\n", "SOUL.md": "You are careful.\n"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of pipelines beside a folder of agents in the shape of other systems."""
    place = tmp_path / "work"
    place.mkdir()
    for name, text in SMITH.items():
        path = tmp_path / "agents" / "smith" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return place


def said(capsys: Any, *words: Any) -> tuple[int, list[str]]:
    """The exit code and what was printed."""
    code = 0
    try:
        call_command("pipelines", *map(str, words))
    except SystemExit as exc:
        code = int(exc.code or 0)
    return code, capsys.readouterr().out.splitlines()


def check(capsys: Any, folder: Path, *words: Any) -> tuple[int, list[str]]:
    return said(capsys, "check", folder, "--agents", folder.parent / "agents", *words)


def test_what_is_right_is_counted(folder: Path, capsys: Any) -> None:
    (folder / "good.yaml").write_text(GOOD)
    assert check(capsys, folder) == (0, ["1 file: 0 errors, 0 warnings"])


def test_everything_wrong_is_told_with_file_line_step_and_key(folder: Path, capsys: Any) -> None:
    (folder / "good.yaml").write_text(GOOD)
    (folder / "bad.yaml").write_text(BAD)
    code, lines = check(capsys, folder)
    assert (code, lines[-1].startswith("2 files: ")) == (1, True)
    assert any(line.startswith(f"{folder}/bad.yaml:2: step A: key agent: ") for line in lines)
    assert any(line.startswith(f"{folder}/bad.yaml:4: step B: key rum: ") for line in lines)


def test_a_warning_fails_only_when_strict(folder: Path, capsys: Any) -> None:
    (folder / "odd.yaml").write_text(f"icon: x\n{GOOD}")
    code, lines = check(capsys, folder)
    assert (code, "warning: " in lines[0], lines[-1]) == (0, True, "1 file: 0 errors, 1 warning")
    assert check(capsys, folder, "--strict")[0] == 1


def test_a_file_may_use_its_neighbours(folder: Path, capsys: Any) -> None:
    (folder / "good.yaml").write_text(GOOD)
    (folder / "user.yaml").write_text("steps: [{id: A, uses: good}]")
    assert said(capsys, "check", folder / "user.yaml", "--agents", folder.parent / "agents")[0] == 0
    (folder / "good.yaml").unlink()
    code, lines = said(capsys, "check", folder / "user.yaml", "--agents", folder.parent / "agents")
    assert (code, "there is no pipeline 'good'" in lines[0]) == (1, True)


def test_a_broken_agent_is_told(folder: Path, capsys: Any) -> None:
    (folder / "good.yaml").write_text(GOOD)
    broken = folder.parent / "agents" / "broken"
    broken.mkdir()
    (broken / "agent.yaml").write_text("- no mapping")
    code, lines = check(capsys, folder)
    assert (code, "broken" in lines[0]) == (1, True)


@pytest.mark.parametrize("name", ["gone.yaml", "empty"])
def test_a_path_without_pipelines_is_an_error(folder: Path, capsys: Any, name: str) -> None:
    (folder / "empty").mkdir()
    code, lines = said(capsys, "check", folder / name)
    assert (code, lines[0].startswith(f"{folder / name}:1: there is no ")) == (1, True)


def test_a_walk_prints_how_much_was_covered(folder: Path, capsys: Any) -> None:
    (folder / "good.yaml").write_text(GOOD)
    code, lines = said(capsys, "simulate", folder, "--agents", folder.parent / "agents")
    assert (code, lines) == (0, [f"{folder}/good.yaml: 100 % covered, 6 of 6 branches, 3 plays"])


def test_what_cannot_be_walked_is_told_and_fails_unless_allowed(folder: Path, capsys: Any) -> None:
    (folder / "half.yaml").write_text(HALF)
    code, lines = said(capsys, "simulate", folder)
    assert (code, " 100 %" in lines[0]) == (1, False)
    assert f"{folder}/half.yaml:6: step B: key when: not covered: the condition is true" in lines
    assert said(capsys, "simulate", folder, "--allow-uncovered")[0] == 0


def test_a_file_with_errors_fails_a_simulation(folder: Path, capsys: Any) -> None:
    (folder / "bad.yaml").write_text(BAD)
    assert said(capsys, "simulate", folder, "--allow-uncovered")[0] == 1


def test_plays_are_shown_when_asked_for(folder: Path, capsys: Any) -> None:
    (folder / "half.yaml").write_text(HALF)
    _, lines = said(capsys, "simulate", folder, "--verbose")
    assert 'half 1:   00:01:00 A visit 1 attempt 1 succeeded {"V": "ok"}' in lines


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "no JSON"),
        ("[]", "a JSON object"),
        ('{"x": 1}', "no pipeline has the input 'x'"),
        ('{"n": "a"}', "n: must be"),
    ],
)
def test_inputs_that_do_not_fit_are_refused(folder: Path, text: str, words: str) -> None:
    (folder / "in.yaml").write_text("inputs: {n: integer}\nsteps: [{id: A, run: x}]")
    with pytest.raises(CommandError, match=words):
        call_command("pipelines", "simulate", str(folder), "--inputs", text)


def test_a_folder_of_agents_that_is_not_there_is_refused(folder: Path) -> None:
    with pytest.raises(CommandError, match="there is no such folder"):
        call_command("pipelines", "check", str(folder), "--agents", str(folder / "gone"))


def test_the_schema_needs_neither_database_nor_installation(tmp_path: Path) -> None:
    hidden = {"DATABASE_URL", "REDIS_URL"}
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    for action in (["schema"], ["check", "pipelines", "--strict"]):
        done = subprocess.run(
            [sys.executable, "manage.py", "pipelines", *action],
            cwd=PROJECT,
            env={**environment, "DJINN_HOME": str(tmp_path)},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, ""), done.stdout
        if action == ["schema"]:
            assert json.loads(done.stdout)["title"] == "Djinn pipeline"


# --- Agents -----------------------------------------------------------------------------------------------------------
@pytest.fixture
def agents(folder: Path, settings: Any) -> Path:
    """The installation's folder of agents, with one in it."""
    settings.AGENTS_DIRECTORY = folder.parent / "agents"
    (folder / "good.yaml").write_text(GOOD)
    return Path(settings.AGENTS_DIRECTORY)


def test_a_typo_in_an_agents_file_is_told_with_file_line_and_key(folder: Path, agents: Path, capsys: Any) -> None:
    (agents / "smith" / "agent.yaml").write_text("name: Smith\nmaxTurn: 3\n")
    (agents / "smith" / "persona.md").write_text("You are careful.")
    code, lines = said(capsys, "check", folder)
    where = "agents/smith/agent.yaml:2: key maxTurn: unknown key 'maxTurn'; did you mean 'maxTurns'?"
    assert lines[:2] == [where, f"{folder}/good.yaml:2: step A: key agent: agent 'smith' cannot be used: {where}"]
    assert (code, lines[-1]) == (1, "1 file: 2 errors, 0 warnings")


def test_what_has_no_effect_in_an_agents_file_is_a_warning(folder: Path, agents: Path, capsys: Any) -> None:
    (agents / "smith" / "config.yml").write_text("tools: [read, browser]\n")
    code, lines = said(capsys, "check", folder)
    told = "agents/smith/config.yml:1: key tools.1: warning: there is no tool 'browser' here"
    assert (code, lines[0].startswith(told), lines[-1]) == (0, True, "1 file: 0 errors, 1 warning")
    assert said(capsys, "check", folder, "--strict")[0] == 1
