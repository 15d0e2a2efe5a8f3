"""Agents as they are written, the registry over their folder, and what they are told."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from django.conf import settings as present
from pytest_django import Settings

from djinn.agents.definition import ALL_TOOLS, Agent, AgentInvalid, load_agent
from djinn.agents.prompts import system_text, task_text
from djinn.agents.registry import find_agent, load_registry
from djinn.core.errors import NotFound


def _write(place: Path, text: str | bytes = "name: Ada\n", persona: str | bytes = "You are Ada.\n") -> Path:
    place.mkdir(exist_ok=True)
    for name, content in (("agent.yaml", text), ("persona.md", persona)):
        (place / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return place


def test_an_agent_needs_a_name_and_a_persona(tmp_path: Path) -> None:
    agent = load_agent(_write(tmp_path / "ada")).agent
    assert agent == Agent("ada", "Ada", "", "You are Ada.", "", ALL_TOOLS, None, None, None)


def test_an_agent_may_say_everything(tmp_path: Path) -> None:
    text = "{name: Ada, description: D, model: a/b, tools: [read], maxTurns: 3, maxOutputTokens: 9, temperature: 0.5}"
    agent = load_agent(_write(tmp_path / "ada", text)).agent
    assert agent == Agent("ada", "Ada", "D", "You are Ada.", "a/b", ("read",), 3, 9, 0.5)


BAD = {
    "empty": ("", "file"),
    "a list": ("[]", "file"),
    "no YAML": ("name: [", "not YAML"),
    "two documents": ("name: A\n---\nname: B", "several documents"),
    "an object of Python": ("name: !!python/object:os.system x", "tags are not allowed"),
    "an alias": ("name: &a A\ndescription: *a", "anchors are not allowed"),
    "an unknown key": ("name: A\nmodle: a/b", "2: key modle: unknown key 'modle'; did you mean 'model'?"),
    "no name": ("model: a/b", "name"),
    "an empty name": ("name: ''", "name"),
    "a name that is a number": ("name: 7", "name"),
    "a tool that is no text": ("name: A\ntools: [read, 3]", "2: key tools.1: "),
    "no turns": ("name: A\nmaxTurns: 0", "maxTurns"),
    "too many turns": ("name: A\nmaxTurns: 1001", "maxTurns"),
    "no tokens": ("name: A\nmaxOutputTokens: 0", "maxOutputTokens"),
    "too hot": ("name: A\ntemperature: 2.1", "temperature"),
    "no temperature": ("name: A\ntemperature: .nan", "temperature"),
    "not UTF-8": (b"name: \xff", "not UTF-8"),
    "NUL": (b"name: A\x00", "NUL"),
    "too large": ("name: A\n#" + "x" * 256 * 1024, "larger than"),
    "very deep": ("name: " + "[" * 50_000, "agent.yaml"),
}


@pytest.mark.parametrize(("text", "words"), BAD.values(), ids=BAD.keys())
def test_a_bad_file_is_refused_by_file_and_key(tmp_path: Path, text: str | bytes, words: str) -> None:
    with pytest.raises(AgentInvalid) as caught:
        load_agent(_write(tmp_path / "ada", text))
    assert caught.value.message.startswith("ada/agent.yaml")
    assert words in caught.value.message


@pytest.mark.parametrize("persona", ["", " \n\t", b"\xff", b"a\x00b"])
def test_a_persona_that_says_nothing_usable_is_refused(tmp_path: Path, persona: str | bytes) -> None:
    with pytest.raises(AgentInvalid, match=r"^ada/persona\.md"):
        load_agent(_write(tmp_path / "ada", persona=persona))


def test_a_missing_persona_is_refused(tmp_path: Path) -> None:
    (_write(tmp_path / "ada") / "persona.md").unlink()
    with pytest.raises(AgentInvalid, match=r"^ada/persona\.md:1: cannot be read"):
        load_agent(tmp_path / "ada")


@pytest.mark.parametrize(("text", "_words"), BAD.values(), ids=BAD.keys())
def test_a_broken_agent_hides_no_other(tmp_path: Path, text: str | bytes, _words: str) -> None:
    _write(tmp_path / "bad", text)
    _write(tmp_path / "good")
    registry = load_registry(tmp_path)
    assert (list(registry.agents), list(registry.problems)) == (["good"], ["bad"])


def test_the_registry_sees_added_changed_and_removed_agents(tmp_path: Path) -> None:
    assert load_registry(tmp_path).agents == {}
    _write(tmp_path / "ada")
    assert load_registry(tmp_path).agents["ada"].persona == "You are Ada."
    _write(tmp_path / "ada", persona="You are somebody else.")
    assert load_registry(tmp_path).agents["ada"].persona == "You are somebody else."
    (tmp_path / "ada" / "agent.yaml").unlink()
    assert load_registry(tmp_path).agents == {}


def test_the_registry_sees_a_change_of_the_same_length(tmp_path: Path) -> None:
    _write(tmp_path / "ada")
    load_registry(tmp_path)
    path = _write(tmp_path / "ada", persona="You are Bob.\n") / "persona.md"
    os.utime(path, ns=(1, 1))
    assert load_registry(tmp_path).agents["ada"].persona == "You are Bob."


def test_files_that_did_not_change_are_not_read_again(tmp_path: Path) -> None:
    _write(tmp_path / "ada")
    assert load_registry(tmp_path) is load_registry(tmp_path)


def test_an_agent_is_found_or_said_to_be_missing_or_broken(tmp_path: Path, settings: Settings) -> None:
    settings.AGENTS_DIRECTORY = tmp_path
    _write(tmp_path / "ada")
    _write(tmp_path / "bad", "name: ''")
    assert find_agent("ada").name == "Ada"
    with pytest.raises(AgentInvalid, match=r"bad/agent\.yaml"):
        find_agent("bad")
    with pytest.raises(NotFound, match="'bob'"):
        find_agent("bob")


def test_the_shipped_agents_can_be_used() -> None:
    registry = load_registry(present.AGENTS_DIRECTORY)
    assert registry.problems == {}
    assert {"analyst", "engineer", "reviewer"} <= set(registry.agents)


def test_an_agent_is_told_who_it_is_and_where() -> None:
    agent = Agent("ada", "Ada", "", "You are {Ada}.", "", (), None, None, None)
    text = system_text(agent, workspace="/workspace")
    assert text.startswith("You are {Ada}.\n\n")
    assert "/workspace" in text


def test_a_task_tells_what_is_owed_and_what_went_wrong() -> None:
    text = task_text(task=" Fix {it}. \n", step="FIX", outputs=["A", "B"], went_wrong="it timed out")
    first, owed, wrong = text.split("\n\n")
    assert (first, "A, B." in owed, "it timed out" in wrong) == ("Fix {it}.", True, True)


def test_a_task_without_words_names_the_step() -> None:
    assert task_text(task=" \n", step="FIX", outputs=[], went_wrong="") == "Do the step FIX."


# --- What somebody got wrong ------------------------------------------------------------------------------------------
def test_everything_wrong_with_a_file_is_told_at_once_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(AgentInvalid) as caught:
        load_agent(_write(tmp_path / "ada", "name: Ada\nmaxTurn: 3\ntemperature: 9\n"))
    assert [(problem.line, problem.key) for problem in caught.value.problems] == [(3, "temperature"), (2, "maxTurn")]
    assert "did you mean 'maxTurns'?" in caught.value.message


def test_a_tool_that_we_do_not_have_is_a_warning_and_the_agent_has_the_rest(tmp_path: Path) -> None:
    loaded = load_agent(_write(tmp_path / "ada", "name: Ada\ntools: [read, browser,\n  greb, view]"))
    assert loaded.agent.tools == ("read",)
    assert [str(warning) for warning in loaded.warnings] == [
        "ada/agent.yaml:2: key tools.1: there is no tool 'browser' here, the agent works without it",
        "ada/agent.yaml:3: key tools.2: there is no tool 'greb' here, the agent works without it; did you mean 'grep'?",
    ]
    assert list(load_registry(tmp_path).warnings) == ["ada"]


def test_an_agent_may_have_no_tools(tmp_path: Path) -> None:
    agent = load_agent(_write(tmp_path / "ada", "name: Ada\ntools: []")).agent
    assert (agent.tools, agent.says_tools) == ((), True)


@pytest.mark.parametrize("name", ["2-fast", "my agent", "über"])
def test_a_folder_whose_name_cannot_be_an_id_says_so(tmp_path: Path, name: str) -> None:
    _write(tmp_path / name)
    (problem,) = load_registry(tmp_path).problems[name]
    assert f"the folder's name {name!r} cannot be an agent's id" in problem.message
    assert "rename it" in problem.message


@pytest.mark.parametrize("name", ["agent.yml", "persona.md"])
def test_a_folder_that_was_meant_to_be_an_agent_says_what_is_missing(tmp_path: Path, name: str) -> None:
    (tmp_path / "ada").mkdir()
    assert load_registry(tmp_path).problems == {}
    (tmp_path / "ada" / name).write_text("name: Ada")
    (problem,) = load_registry(tmp_path).problems["ada"]
    assert problem.message.startswith(f"there is no agent.yaml in this folder, only {name}; an agent needs agent.yaml")
