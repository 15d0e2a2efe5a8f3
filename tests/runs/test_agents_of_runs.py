"""The agents that a run starts with: their tools, and what is said when one cannot be used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pytest_django import Settings

from djinn.core.errors import UserError
from djinn.pipelines.schema import from_snapshot
from djinn.runs.catalogue import agents_of, find_pipeline
from djinn.runs.services import start_run
from tests.make import begin, step, work, write_pipeline

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("home")]
ASK = {"id": "A", "agent": "ada", "model": "scripted/none", "input": "Look."}


@pytest.fixture
def ada(tmp_path: Path, settings: Settings) -> Path:
    """The file of the only agent; it says nothing about tools."""
    settings.AGENTS_DIRECTORY = tmp_path / "agents"
    folder = settings.AGENTS_DIRECTORY / "ada"
    folder.mkdir(parents=True)
    (folder / "persona.md").write_text("You are Ada.")
    (folder / "agent.yaml").write_text("name: Ada\n")
    return Path(folder / "agent.yaml")


ALL = ["read", "write", "edit", "bash", "grep", "find", "ls"]


@pytest.mark.parametrize(
    ("own", "defaults", "declared", "tools"),
    [
        (None, None, None, ALL),
        (None, ["read", "web"], None, ["read"]),
        (None, [], None, []),
        ("[grep]", ["read"], None, ["grep"]),
        ("[]", ["read"], None, []),
        ("[grep]", ["read"], ["shell", "teleport"], ["bash"]),
        ("[grep]", ["read"], [], []),
    ],
)
def test_who_says_nearest_to_the_run_which_tools_an_agent_has(
    ada: Path, own: str | None, defaults: list[str] | None, declared: list[str] | None, tools: list[str]
) -> None:
    if own is not None:
        ada.write_text(f"name: Ada\ntools: {own}\n")
    top: dict[str, Any] = {"defaults": {} if defaults is None else {"tools": defaults}}
    top["agents"] = [{"id": "ada"} if declared is None else {"id": "ada", "tools": declared}]
    write_pipeline(ASK, **top)
    agents = agents_of(find_pipeline("work").pipeline)
    assert (list(agents["ada"]["tools"]), "says_tools" in agents["ada"]) == (tools, False)
    run = start_run(pipeline_id="work", inputs={})
    assert from_snapshot(run.definition).agents["ada"].tools == (None if declared is None else tuple(tools))


def test_a_start_tells_the_line_of_a_typo_in_an_agents_file(ada: Path) -> None:
    write_pipeline(ASK)
    ada.write_text("name: Ada\nmodle: x/y\n")
    with pytest.raises(UserError) as caught:
        start_run(pipeline_id="work", inputs={})
    assert "agents/ada/agent.yaml:2: key modle: unknown key 'modle'; did you mean 'model'?" in caught.value.message


def test_a_run_that_uses_a_pipeline_of_a_broken_agent_fails_with_the_line(ada: Path) -> None:
    write_pipeline(ASK, name="inner")
    run = begin(step("FIRST"), {"id": "USE", "uses": "inner"})
    ada.write_text("name: Ada\nmodle: x/y\n")
    work(run)
    run.refresh_from_db()
    assert (run.status, run.reason) == ("failed", "input")
    assert "agents/ada/agent.yaml:2: key modle: unknown key 'modle'; did you mean 'model'?" in run.message
