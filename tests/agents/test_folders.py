"""Agent folders in the other common shape, written as other systems write them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from djinn.agents.definition import ALL_TOOLS
from djinn.agents.errors import AgentInvalid
from djinn.agents.folders import load_folder_agent
from djinn.agents.registry import load_registry

IDENTITY = """\
# IDENTITY.md - Who am I?

- **Name:** Nora
- **Role:** Release captain
- **Creature:** An owl with a stopwatch
- **Emoji:** 🦉

---
"""
SOUL = "You like small releases and quiet nights.\n"
AGENTS = "## Every session\n\nRead the changelog first.\n"
DECISION = "When unsure, ship less.\n"
CONFIG = """\
# how this one runs
model: anthropic/claude-sonnet-4
planningModel: anthropic/claude-opus-4
maxTurns: 45
temperature: 0.3
maxOutputTokens: 12000
tools: [read_file, write_file, Bash, glob, web_search]
thinkingLevel: medium
heartbeat:
  every: 30m
"""


def _folder(place: Path, **files: str | bytes) -> Path:
    folder = place / "nora"
    folder.mkdir()
    for name, content in files.items():
        path = folder / (name.replace("_", "."))
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder


def test_a_whole_folder_becomes_an_agent(tmp_path: Path) -> None:
    folder = _folder(
        tmp_path, IDENTITY_md=IDENTITY, SOUL_md=SOUL, AGENTS_md=AGENTS, DECISION_md=DECISION, config_yml=CONFIG
    )
    agent = load_folder_agent(folder).agent
    assert (agent.folder, agent.name, agent.description, agent.emoji) == ("nora", "Nora", "Release captain", "🦉")
    assert (agent.model, agent.tools) == ("anthropic/claude-sonnet-4", ("read", "write", "bash", "find"))
    assert (agent.max_turns, agent.max_output_tokens, agent.temperature) == (45, 12000, 0.3)


def test_the_persona_is_soul_agents_and_decision_under_headings(tmp_path: Path) -> None:
    folder = _folder(tmp_path, DECISION_md=DECISION, AGENTS_md=AGENTS, SOUL_md=SOUL, IDENTITY_md=IDENTITY)
    assert load_folder_agent(folder).agent.persona == (
        "You are Nora, Release captain.\n\n"
        "# Who you are\n\nYou like small releases and quiet nights.\n\n"
        "# How you work\n\n## Every session\n\nRead the changelog first.\n\n"
        "# How you decide\n\nWhen unsure, ship less."
    )


def test_a_soul_alone_is_an_agent_named_after_its_folder(tmp_path: Path) -> None:
    agent = load_folder_agent(_folder(tmp_path, SOUL_md=SOUL)).agent
    assert (agent.name, agent.description, agent.model, agent.tools) == ("Nora", "", "", ALL_TOOLS)
    assert agent.persona == "# Who you are\n\nYou like small releases and quiet nights."


def test_an_identity_alone_is_its_own_persona(tmp_path: Path) -> None:
    agent = load_folder_agent(_folder(tmp_path, IDENTITY_md=IDENTITY)).agent
    assert (agent.name, agent.persona) == ("Nora", IDENTITY.strip())


LABELS = {
    "on a line": ("**Name:** Eric", "Eric"),
    "in a list": ("- **Name:** Eric", "Eric"),
    "in an indented list of stars": ("  * **Name:** Eric", "Eric"),
    "colon behind the bold": ("**Name**: Eric", "Eric"),
    "underscores": ("__Name:__ Eric", "Eric"),
    "lower case": ("**name:** Eric", "Eric"),
    "on the next line": ("- **Name:**\n  Eric", "Eric"),
    "Windows lines": ("- **Name:** Eric\r\n- **Role:** PO\r\n", "Eric"),
    "twice": ("**Name:** Eric\n**Name:** Bob", "Eric"),
    "not filled in": ("- **Name:** _(pick something)_", "Nora"),
    "a placeholder": ("**Name:** {{ name }}", "Nora"),
    "nothing": ("**Name:**\n\nEric", "Nora"),
    "another label below": ("- **Name:**\n  **Role:** PO", "Nora"),
    "no label": ("Name: Eric", "Nora"),
}


@pytest.mark.parametrize(("text", "name"), LABELS.values(), ids=LABELS.keys())
def test_labels_are_found_as_people_write_them(tmp_path: Path, text: str, name: str) -> None:
    assert load_folder_agent(_folder(tmp_path, IDENTITY_md=text)).agent.name == name


def test_keys_in_snake_case_say_the_same(tmp_path: Path) -> None:
    folder = _folder(tmp_path, SOUL_md=SOUL, config_yml="max_turns: 7\nmax_output_tokens: 9\n")
    agent = load_folder_agent(folder).agent
    assert (agent.max_turns, agent.max_output_tokens) == (7, 9)


def test_a_key_with_nothing_behind_it_is_absent(tmp_path: Path) -> None:
    folder = _folder(tmp_path, SOUL_md=SOUL, config_yml="model:\ndescription: ~\nmax_turns: 7\ntools: null\n")
    agent = load_folder_agent(folder).agent
    assert (agent.model, agent.description, agent.max_turns) == ("", "", 7)


def test_what_only_others_know_is_a_warning_with_its_line(tmp_path: Path) -> None:
    folder = _folder(tmp_path, SOUL_md=SOUL, config_yml=CONFIG)
    assert [str(warning) for warning in load_folder_agent(folder).warnings] == [
        "nora/config.yml:3: key planningModel: this key has no effect here",
        "nora/config.yml:8: key thinkingLevel: this key has no effect here",
        "nora/config.yml:9: key heartbeat: this key has no effect here",
        "nora/config.yml:7: key tools.4: there is no tool 'web_search' here, the agent works without it",
    ]


TOOLS = {
    "nothing said": ("", ALL_TOOLS),
    "null": ("tools:", ALL_TOOLS),
    "none": ("tools: []", ()),
    "only unknown ones": ("tools: [browser]", ()),
    "two names of one": ("tools: [view, read_file]", ("read",)),
    "a dash": ("tools: [str-replace, Execute-Command]", ("edit", "bash")),
    "our own": ("tools: [read, ls]", ("read", "ls")),
}


@pytest.mark.parametrize(("text", "tools"), TOOLS.values(), ids=TOOLS.keys())
def test_tools_are_those_of_the_same_meaning(tmp_path: Path, text: str, tools: tuple[str, ...]) -> None:
    folder = _folder(tmp_path, SOUL_md=SOUL, config_yml=text)
    assert load_folder_agent(folder).agent.tools == tools


BAD = {
    "turns that are no number": ({"config_yml": "model: a/b\nmaxTurns: many"}, "nora/config.yml:2: key max_turns:"),
    "too hot": ({"config_yml": "temperature: 3"}, "nora/config.yml:1: key temperature:"),
    "one thing said twice": (
        {"config_yml": "maxTurns: 1\nmax_turns: 2"},
        "nora/config.yml:2: key max_turns: says the same",
    ),
    "a key twice": ({"config_yml": "model: a\nmodel: b"}, "nora/config.yml:2: the key 'model' is there twice"),
    "no mapping": ({"config_yml": "- model"}, "nora/config.yml:1: the file must be a mapping (`name: ...`)"),
    "no YAML": ({"config_yml": "model: a\n  b: ]"}, "nora/config.yml:2: not YAML"),
    "an object of Python": (
        {"config_yml": "x: 1\nmodel: !!python/name:os.system x"},
        "nora/config.yml:2: tags are not allowed",
    ),
    "an alias": ({"config_yml": "a: &x [1]\nb: *x"}, "nora/config.yml:1: anchors are not allowed (&x)"),
    "very deep": ({"config_yml": "a: 1\nb: " + "[" * 50_000}, "nora/config.yml:2: values are nested deeper"),
    "a NUL": ({"SOUL_md": b"one\ntwo\x00"}, "nora/SOUL.md:2: holds a NUL"),
    "not UTF-8": ({"AGENTS_md": b"one\n\ntwo \xff"}, "nora/AGENTS.md:3: cannot be read: it is not UTF-8"),
    "too large": ({"DECISION_md": "x" * (256 * 1024 + 1)}, "nora/DECISION.md:1: is larger than"),
    "a long name": ({"IDENTITY_md": "\n**Name:** " + "x" * 101}, "nora/IDENTITY.md:2: key name:"),
    "nothing in it": ({"SOUL_md": " \n", "IDENTITY_md": ""}, "nora:1: SOUL.md, AGENTS.md, DECISION.md and IDENTITY.md"),
}


@pytest.mark.parametrize(("files", "words"), BAD.values(), ids=BAD.keys())
def test_a_bad_folder_is_refused_by_file_and_line(tmp_path: Path, files: dict[str, str | bytes], words: str) -> None:
    folder = _folder(tmp_path, **{"SOUL_md": SOUL, **files})
    with pytest.raises(AgentInvalid) as caught:
        load_folder_agent(folder)
    assert caught.value.message.startswith(words)


def test_parts_that_are_too_long_together_are_refused(tmp_path: Path) -> None:
    folder = _folder(tmp_path, SOUL_md="x" * 200_000, AGENTS_md="y" * 200_000)
    with pytest.raises(AgentInvalid, match="with all its parts is larger"):
        load_folder_agent(folder)


def test_a_pipe_in_the_place_of_a_part_does_not_hang(tmp_path: Path) -> None:
    folder = _folder(tmp_path, SOUL_md=SOUL)
    os.mkfifo(folder / "AGENTS.md")
    with pytest.raises(AgentInvalid, match=r"nora/AGENTS\.md:1: cannot be read: it is not a regular file"):
        load_folder_agent(folder)


def test_the_registry_holds_both_shapes_and_their_warnings(tmp_path: Path) -> None:
    _folder(tmp_path, SOUL_md=SOUL, config_yml="heartbeat: 5m")
    (tmp_path / "ada").mkdir()
    (tmp_path / "ada" / "agent.yaml").write_text("name: Ada")
    (tmp_path / "ada" / "persona.md").write_text("You are Ada.")
    registry = load_registry(tmp_path)
    assert (list(registry.agents), dict(registry.problems)) == (["ada", "nora"], {})
    found = {name: [str(warning) for warning in warnings] for name, warnings in registry.warnings.items()}
    assert found == {"nora": [f"{tmp_path.name}/nora/config.yml:1: key heartbeat: this key has no effect here"]}


def test_the_registry_sees_every_file_of_a_folder_change(tmp_path: Path) -> None:
    folder = _folder(tmp_path, SOUL_md=SOUL)
    for name, text in {
        "AGENTS.md": "A",
        "DECISION.md": "D",
        "config.yml": "model: m/n",
        "IDENTITY.md": "**Name:** E",
    }.items():
        before = load_registry(tmp_path)
        (folder / name).write_text(text)
        assert load_registry(tmp_path).agents["nora"] != before.agents["nora"], name


def test_a_folder_of_both_shapes_is_read_by_its_own_file_and_says_so(tmp_path: Path) -> None:
    _folder(tmp_path, SOUL_md=SOUL, agent_yaml="name: Ada", persona_md="You are Ada.")
    registry = load_registry(tmp_path)
    assert registry.agents["nora"].persona == "You are Ada."
    (warning,) = registry.warnings["nora"]
    assert str(warning) == f"{tmp_path.name}/nora/SOUL.md:1: not read, because agent.yaml is there"


def test_a_folder_with_notes_only_is_no_agent(tmp_path: Path) -> None:
    _folder(tmp_path, AGENTS_md=AGENTS, config_yml=CONFIG)
    registry = load_registry(tmp_path)
    assert (dict(registry.agents), dict(registry.problems)) == ({}, {})
