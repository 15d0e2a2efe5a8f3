"""Files that were written for other systems load as they are: the routed family, and agents in the other shape."""

from __future__ import annotations

from pathlib import Path

import pytest

from djinn.agents.registry import load_registry
from djinn.pipelines.loader import Catalogue, Loaded, load_folder

FOREIGN = Path(__file__).parent / "foreign"


@pytest.fixture
def catalogue() -> Catalogue:
    return load_folder(FOREIGN, known_agents=load_registry(FOREIGN / "agents").agents)


def _warnings(loaded: Loaded) -> list[tuple[str, str]]:
    return [(problem.step, problem.key) for problem in loaded.warnings]


def test_they_load_without_errors(catalogue: Catalogue) -> None:
    assert catalogue.problems == {}
    assert set(catalogue.pipelines) == {"delivery", "support-triage", "newsletter"}


@pytest.mark.parametrize(
    ("pipeline", "expected"),
    [
        ("delivery", [("write-up", "type"), ("slice", "outputMethod"), ("build", "type")]),
        ("support-triage", [("CLASSIFY", "outputMethod")]),
        ("newsletter", [("WRITE", "dependsOn"), ("WRITE", "outputMethod"), ("WRITE", "onResult.MAYBE")]),
    ],
)
def test_keys_without_effect_are_warnings_and_nothing_else_is(
    catalogue: Catalogue, pipeline: str, expected: list[tuple[str, str]]
) -> None:
    assert _warnings(catalogue.pipelines[pipeline]) == expected


def test_their_agents_load_with_warnings_for_what_others_know() -> None:
    registry = load_registry(FOREIGN / "agents")
    assert dict(registry.problems) == {}
    assert {agent.folder: agent.name for agent in registry.agents.values()} == {
        "eric": "Eric", "ines": "Ines", "rae": "Rae", "tomas": "Tomas",
    }  # fmt: skip
    assert set(registry.warnings) == {"eric", "ines"}


def test_defaults_and_their_spellings_mean_what_they_say(catalogue: Catalogue) -> None:
    pipeline = catalogue.pipelines["delivery"].pipeline
    build, check, written = pipeline.step("build"), pipeline.step("check"), pipeline.step("write-up")
    assert (written.timeout_seconds, build.timeout_seconds) == (1800, 3600)
    assert (written.retries.max, check.retries.max) == (2, 1)
    assert (written.model, written.max_turns, build.max_turns) == ("anthropic/claude-sonnet-4", 30, 80)


def test_a_loop_of_theirs_is_a_loop_here(catalogue: Catalogue) -> None:
    pipeline = catalogue.pipelines["delivery"].pipeline
    loop, routes = pipeline.step("build").loop, pipeline.step("check").on_result
    assert loop is not None
    assert (loop.over, loop.on_each_complete, loop.on_all_complete) == ("tickets_json", "check", "wrap-up")
    assert (routes["PASS"].continue_loop, routes["UNSURE"].retry, routes["UNSURE"].max_retries) == (True, True, 2)
    assert routes["REDO"].goto == "build"
    assert routes["REDO"].notify is not None
    assert routes["REDO"].notify.agent == "tomas"


def test_sections_with_nothing_in_them_are_absent(catalogue: Catalogue) -> None:
    pipeline = catalogue.pipelines["delivery"].pipeline
    assert (pipeline.inputs, pipeline.workspace.repository) == ((), "")
    assert (pipeline.step("build").on_result, pipeline.step("wrap-up").on_result) == ({}, {})


def test_depends_on_gives_the_order(catalogue: Catalogue) -> None:
    pipeline = catalogue.pipelines["support-triage"].pipeline
    assert [step.id for step in pipeline.steps] == ["CLASSIFY", "LOOK_UP", "ANSWER"]


def test_a_result_named_as_a_word_of_yaml_stays_text(catalogue: Catalogue) -> None:
    assert set(catalogue.pipelines["newsletter"].pipeline.step("WRITE").on_result) == {"ON", "NO", "MAYBE"}


def test_an_agent_that_is_known_nowhere_is_still_an_error(tmp_path: Path) -> None:
    text = (FOREIGN / "triage.yml").read_text().replace("    agent: rae", "    agent: ray", 1)
    (tmp_path / "triage.yml").write_text(text)
    (problem,) = load_folder(tmp_path, known_agents={"eric", "rae"}).problems["triage.yml"][:1]
    assert (problem.severity, problem.key, "did you mean 'rae'" in problem.message) == ("error", "agent", True)
