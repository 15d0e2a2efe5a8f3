"""What ships in `pipelines/` and `agents/`: it loads, nothing is wrong with it, and its parts are used."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from djinn.agents.registry import load_registry
from djinn.pipelines.loader import Catalogue, load_folder
from djinn.pipelines.schema import Pipeline, Step
from djinn.pipelines.template import render

PROJECT = Path(__file__).resolve().parents[2]
AGENTS = PROJECT / "agents"
PIPELINES = ("bugfix", "demo", "engineering", "execute", "feature", "import", "parallel-review", "planning", "resolve")
OWN = ("product-owner", "architect", "ux-designer", "senior-engineer", "test-engineer", "sre", "devex")


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    agents = load_registry(AGENTS).agents
    return load_folder(PROJECT / "pipelines", known_agents=agents.keys())


def _pipeline(catalogue: Catalogue, name: str) -> Pipeline:
    return catalogue.pipelines[name].pipeline


def test_every_pipeline_loads(catalogue: Catalogue) -> None:
    assert catalogue.problems == {}
    assert set(catalogue.pipelines) == set(PIPELINES)


@pytest.mark.parametrize("name", PIPELINES)
def test_a_pipeline_has_no_warning(catalogue: Catalogue, name: str) -> None:
    assert [str(problem) for problem in catalogue.pipelines[name].warnings] == []


@pytest.mark.parametrize("name", PIPELINES)
def test_a_pipeline_says_what_it_is_for(catalogue: Catalogue, name: str) -> None:
    pipeline = _pipeline(catalogue, name)
    assert pipeline.description
    assert [one.name for one in pipeline.inputs if not one.description] == []


@pytest.mark.parametrize("name", [name for name in PIPELINES if name != "demo"])
def test_a_step_says_what_it_is_for(catalogue: Catalogue, name: str) -> None:
    assert [step.id for step in _pipeline(catalogue, name).steps if not step.description] == []


@pytest.mark.parametrize("name", PIPELINES)
def test_every_output_of_an_agent_is_asked_for_in_its_prompt(catalogue: Catalogue, name: str) -> None:
    steps = [step for step in _pipeline(catalogue, name).steps if step.kind == "agent" and step.output_schema is None]
    assert [(step.id, one) for step in steps for one in step.outputs if f"{one}:" not in step.input] == []


@pytest.mark.parametrize("name", PIPELINES)
def test_every_word_that_routes_is_asked_for_in_the_prompt(catalogue: Catalogue, name: str) -> None:
    steps = [step for step in _pipeline(catalogue, name).steps if step.kind == "agent"]
    assert [(step.id, word) for step in steps for word in step.on_result if word not in step.input] == []


@pytest.mark.parametrize("name", PIPELINES)
def test_what_an_agent_does_not_clearly_accept_is_never_accepted(catalogue: Catalogue, name: str) -> None:
    """Of an agent that judges, a word that routes forward has to be said; anything else goes another way or fails."""
    judges = [
        step for step in _pipeline(catalogue, name).steps if {"APPROVED", "PASS", "RIGHT"} & step.on_result.keys()
    ]
    assert [step.id for step in judges if step.on_complete is None and not step.must_match] == []


def test_a_demo_is_the_only_one_with_a_model_of_its_own(catalogue: Catalogue) -> None:
    named = {name for name in PIPELINES for step in _pipeline(catalogue, name).steps if step.model}
    assert named == {"demo"}


def test_every_agent_loads() -> None:
    registry = load_registry(AGENTS)
    assert (dict(registry.problems), dict(registry.warnings)) == ({}, {})
    assert set(registry.agents) == {"analyst", "engineer", "reviewer", *OWN}


def test_every_agent_has_work(catalogue: Catalogue) -> None:
    used = {step.agent for name in PIPELINES for step in _pipeline(catalogue, name).steps}
    assert set(load_registry(AGENTS).agents) - used == set()


@pytest.mark.parametrize("name", OWN)
def test_a_persona_is_long_enough_to_have_opinions_and_short_enough_to_be_read(name: str) -> None:
    lines = (AGENTS / name / "persona.md").read_text().splitlines()
    assert 15 <= len(lines) <= 40


def test_every_fragment_is_included_by_somebody() -> None:
    personas = "\n".join(agent.persona for agent in load_registry(AGENTS).agents.values())
    fragments = list((AGENTS / "_shared").glob("*.md"))
    assert fragments
    assert [path.name for path in fragments if path.read_text().strip() not in personas] == []


# --- Scripts of `run:` steps ------------------------------------------------------------------------------------------
def _run(step: Step, place: Path, **names: object) -> tuple[int, str]:
    """The exit code of the step's script, and what it wrote to the file of outputs."""
    written = place.parent / f"{place.name}.outputs"
    written.write_text("")
    script = render(step.run, names).text  # type: ignore[arg-type]
    environment = {"DJINN_OUTPUT": str(written), "PATH": "/usr/bin:/bin", "HOME": "/nonexistent"}
    done = subprocess.run(
        ["bash", "-eo", "pipefail", "-c", script], cwd=place, env=environment, capture_output=True, timeout=60
    )
    return done.returncode, written.read_text()


def _git(place: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=T", "-c", "user.email=t@localhost", "-C", str(place), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    place = tmp_path / "tree"
    place.mkdir()
    _git(place, "init", "-q", "-b", "main")
    (place / "one.txt").write_text("one\n")
    _git(place, "add", ".")
    _git(place, "commit", "-q", "-m", "First")
    return place


CHECKED = ("bugfix", "execute", "feature", "resolve")


@pytest.mark.parametrize("name", CHECKED)
@pytest.mark.parametrize(
    ("command", "result", "log"),
    [
        ("", "none", "No command for the tests was given."),
        ("echo it's fine", "fail", ""),
        ('echo "all good"; true', "pass", "all good"),
        ("echo no; exit 7", "fail", "no"),
    ],
)
def test_the_check_tells_how_the_tests_ended(
    catalogue: Catalogue, tmp_path: Path, name: str, command: str, result: str, log: str
) -> None:
    code, written = _run(_pipeline(catalogue, name).step("CHECK"), tmp_path, test_command=command)
    found = re.fullmatch(r"CHECK=(\w+)\nCHECK_LOG<<(end-[0-9a-f]{16})\n(.*)\n\2\n", written, re.DOTALL)
    assert found is not None, written
    assert (code, found[1]) == (0, result)
    assert log in found[3]


def test_a_piece_of_work_becomes_a_commit(catalogue: Catalogue, repository: Path) -> None:
    (repository / "two.txt").write_text("two\n")
    step = _pipeline(catalogue, "engineering").step("COMMIT")
    code, _ = _run(step, repository, current_item={"title": "Add 'two' $(touch /tmp/x)"})
    assert (code, _git(repository, "log", "-1", "--format=%s")) == (0, "Add 'two' $(touch /tmp/x)")
    assert _git(repository, "status", "--porcelain") == ""


def test_a_piece_of_work_that_changed_nothing_is_no_commit(catalogue: Catalogue, repository: Path) -> None:
    code, _ = _run(_pipeline(catalogue, "engineering").step("COMMIT"), repository, current_item={"title": "Nothing"})
    assert (code, _git(repository, "log", "-1", "--format=%s")) == (0, "First")


@pytest.mark.parametrize(
    ("command", "code", "deployed"),
    [("", 0, "no"), ("true", 0, "yes"), ("exit 3", 3, None)],
    ids=["none", "good", "bad"],
)
def test_a_deployment_tells_whether_it_happened(
    catalogue: Catalogue, tmp_path: Path, command: str, code: int, deployed: str | None
) -> None:
    found, written = _run(_pipeline(catalogue, "engineering").step("DEPLOY"), tmp_path, deploy_command=command)
    assert (found, written) == (code, f"DEPLOYED={deployed}\n" if deployed else "")


PULL = {"branch": "fix/7-two", "pull_title": "Add 'two'", "pull_text": "It was missing.\n\n$(exit 1)"}


def test_a_pull_request_is_prepared_as_branch_patch_and_text(catalogue: Catalogue, repository: Path) -> None:
    (repository / "two.txt").write_text("two\n")
    code, written = _run(_pipeline(catalogue, "resolve").step("PREPARE"), repository, **PULL)
    commit = _git(repository, "rev-parse", "fix/7-two")
    assert (code, written) == (0, f"BRANCH=fix/7-two\nCOMMIT={commit}\n")
    assert "+two" in (repository / "pull-request" / "change.patch").read_text()
    assert (repository / "pull-request" / "text.md").read_text() == PULL["pull_text"] + "\n"
    assert _git(repository, "show", "--stat", "--format=", "HEAD").startswith("two.txt")


def test_a_pull_request_that_is_prepared_again_stays_the_same(catalogue: Catalogue, repository: Path) -> None:
    (repository / "two.txt").write_text("two\n")
    step = _pipeline(catalogue, "resolve").step("PREPARE")
    assert _run(step, repository, **PULL) == _run(step, repository, **PULL)


def test_a_pull_request_without_a_change_fails(catalogue: Catalogue, repository: Path) -> None:
    code, written = _run(_pipeline(catalogue, "resolve").step("PREPARE"), repository, **PULL)
    assert (code, written) == (1, "")


@pytest.mark.parametrize("branch", ["-f", "a..b", "a b", "x; exit 0"])
def test_a_branch_that_git_would_refuse_fails(catalogue: Catalogue, repository: Path, branch: str) -> None:
    (repository / "two.txt").write_text("two\n")
    code, _ = _run(_pipeline(catalogue, "resolve").step("PREPARE"), repository, **{**PULL, "branch": branch})
    assert code != 0
    assert _git(repository, "branch", "--show-current") == "main"


def test_a_review_is_told_what_changed_since_the_base(catalogue: Catalogue, repository: Path) -> None:
    base = _git(repository, "rev-parse", "HEAD")
    _git(repository, "checkout", "-q", "-b", "topic")
    (repository / "two.txt").write_text("two\n")
    _git(repository, "add", ".")
    _git(repository, "commit", "-q", "-m", "Second")
    code, written = _run(_pipeline(catalogue, "parallel-review").step("COLLECT"), repository, base="main")
    assert (code, written.startswith(f"FROM={base}\nCHANGES<<")) == (0, True)
    assert "Second" in written
    assert "two.txt" in written
    assert "First" not in written


def test_a_review_against_a_base_that_is_not_there_fails(catalogue: Catalogue, repository: Path) -> None:
    code, written = _run(_pipeline(catalogue, "parallel-review").step("COLLECT"), repository, base="nowhere")
    assert (code, written) == (1, "")
