"""Texts that several personas share, as `include` names them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from djinn.agents.definition import load_agent
from djinn.agents.errors import AgentInvalid
from djinn.agents.files import LARGEST_FILE
from djinn.agents.registry import load_registry


def _write(place: Path, include: str, **fragments: str) -> Path:
    folder = place / "ada"
    folder.mkdir()
    (folder / "agent.yaml").write_text(f"name: Ada\ninclude: {include}\n")
    (folder / "persona.md").write_text("You are Ada.\n")
    (place / "_shared").mkdir()
    for name, text in fragments.items():
        (place / "_shared" / f"{name}.md").write_text(text)
    return folder


def test_fragments_follow_the_persona_in_the_order_of_the_key(tmp_path: Path) -> None:
    folder = _write(tmp_path, "[two, one]", one="First.\n", two="\nSecond.\n", three="Third.")
    assert load_agent(folder).agent.persona == "You are Ada.\n\nSecond.\n\nFirst."


BAD = {
    "missing": ("[workspce]", "there is no fragment _shared/workspce.md; did you mean 'workspace'?"),
    "a path": ("[../ada/persona]", "is no name of a fragment"),
    "an absolute path": ("[/etc/passwd]", "is no name of a fragment"),
    "a name with an ending": ("[workspace.md]", "is no name of a fragment"),
    "nothing": ("['']", "is no name of a fragment"),
    "twice": ("[workspace, workspace]", "is there twice"),
    "empty": ("[empty]", "is empty"),
    "out of the folder": ("[link]", "leads out of _shared/"),
    "no list": ("workspace", "include"),
}


@pytest.mark.parametrize(("include", "words"), BAD.values(), ids=BAD.keys())
def test_a_bad_include_is_refused_with_its_line(tmp_path: Path, include: str, words: str) -> None:
    folder = _write(tmp_path, include, workspace="Here.", empty=" \n")
    (tmp_path / "secret.md").write_text("Hidden.")
    (tmp_path / "_shared" / "link.md").symlink_to(tmp_path / "secret.md")
    with pytest.raises(AgentInvalid) as caught:
        load_agent(folder)
    assert caught.value.message.startswith("ada/agent.yaml:2: key include")
    assert words in caught.value.message


def test_a_fragment_that_is_no_file_is_refused(tmp_path: Path) -> None:
    folder = _write(tmp_path, "[pipe]")
    os.mkfifo(tmp_path / "_shared" / "pipe.md")
    with pytest.raises(AgentInvalid, match=r"_shared/pipe\.md:1: cannot be read: it is not a regular file"):
        load_agent(folder)


def test_a_persona_with_all_its_fragments_is_bounded(tmp_path: Path) -> None:
    folder = _write(tmp_path, "[one, two]", one="x" * (LARGEST_FILE // 2), two="y" * (LARGEST_FILE // 2))
    with pytest.raises(AgentInvalid, match="with all its parts is larger"):
        load_agent(folder)


def test_a_changed_fragment_is_seen_without_a_restart(tmp_path: Path) -> None:
    _write(tmp_path, "[one]", one="Before.")
    assert load_registry(tmp_path).agents["ada"].persona.endswith("Before.")
    (tmp_path / "_shared" / "one.md").write_text("Behind.")
    assert load_registry(tmp_path).agents["ada"].persona.endswith("Behind.")


def test_a_removed_fragment_breaks_only_those_who_include_it(tmp_path: Path) -> None:
    _write(tmp_path, "[one]", one="Text.")
    other = tmp_path / "bob"
    other.mkdir()
    (other / "agent.yaml").write_text("name: Bob")
    (other / "persona.md").write_text("You are Bob.")
    assert load_registry(tmp_path).problems == {}
    (tmp_path / "_shared" / "one.md").unlink()
    registry = load_registry(tmp_path)
    assert (list(registry.agents), list(registry.problems)) == (["bob"], ["ada"])


def test_the_shared_folder_is_no_agent(tmp_path: Path) -> None:
    _write(tmp_path, "[one]", one="Text.")
    (tmp_path / "_shared" / "SOUL.md").write_text("A soul.")
    assert list(load_registry(tmp_path).agents) == ["ada"]
