"""The stub plays an execution's journal without running anything."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from djinn.runner.base import ContainerSpec, Phase, SpecificationRefused
from djinn.runner.journal import read_journal
from djinn.runner.stub import StubRunner
from runtime_image.djinn_runtime.protocol import AgentBrief, Brief, Record, dump_brief

Place = Callable[..., ContainerSpec]


@pytest.fixture
def runner(tmp_path: Path) -> StubRunner:
    return StubRunner(tmp_path / "stub")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Writes a brief and gives the execution for it."""

    def make(script: str | None = None, outputs: tuple[str, ...] = ()) -> ContainerSpec:
        agent = None if script else AgentBrief("a", "m", "s", "p", [], outputs=list(outputs))
        mode = "command" if script else "agent"
        brief = Brief("e1", mode, "t", "/w", "/g", 60, agent=agent, script=script, outputs=list(outputs))
        (tmp_path / "brief.json").write_bytes(dump_brief(brief))
        (tmp_path / "scratch").mkdir(exist_ok=True)
        (tmp_path / "journal.ndjson").touch()
        return ContainerSpec("e1", "none", tmp_path, tmp_path, tmp_path, tmp_path, 60)

    return make


def stub(**wishes: object) -> str:
    return json.dumps({"stub": wishes})


def records(spec: ContainerSpec) -> list[Record]:
    batch = read_journal(spec.execution_directory / "journal.ndjson", offset=0, count=0)
    assert not any(entry.is_garbage for entry in batch.entries)
    return [entry.record for entry in batch.entries]


def test_an_agent_succeeds_with_each_output_ok(runner: StubRunner, place: Place) -> None:
    spec = place(outputs=("answer",))
    runner.start(spec)
    first, last = records(spec)
    assert (first.type, last.data["status"], last.data["outputs"]) == ("ready", "succeeded", {"answer": "ok"})
    assert (runner.inspect("e1").phase, runner.inspect("e1").exit_code) == (Phase.EXITED, 0)


def test_an_ordinary_command_script_succeeds(runner: StubRunner, place: Place) -> None:
    spec = place("echo hi")
    runner.start(spec)
    assert records(spec)[-1].data["status"] == "succeeded"


def test_a_script_says_what_happens(runner: StubRunner, place: Place) -> None:
    finished = {"status": "failed", "error": {"reason": "turns", "message": "x"}}
    spec = place(stub(records=[{"type": "log", "data": {"text": "a"}}], finished=finished, exit_code=3))
    runner.start(spec)
    assert [record.type for record in records(spec)] == ["ready", "log", "finished"]
    assert (records(spec)[-1].data, runner.inspect("e1").exit_code) == (finished, 3)


def test_a_script_may_end_without_saying_how(runner: StubRunner, place: Place) -> None:
    spec = place(stub(finished=None, exit_code=137))
    runner.start(spec)
    assert ([record.type for record in records(spec)], runner.inspect("e1").exit_code) == (["ready"], 137)


def test_a_held_execution_runs_until_it_is_stopped(runner: StubRunner, place: Place) -> None:
    runner.start(place(stub(hold=True)))
    before = runner.inspect("e1").phase
    runner.stop("e1", 5)
    assert (before, runner.inspect("e1").phase, runner.inspect("e1").exit_code) == (Phase.RUNNING, Phase.EXITED, 143)


def test_a_second_start_plays_nothing(runner: StubRunner, place: Place) -> None:
    spec = place()
    runner.start(spec)
    runner.start(spec)
    assert len(records(spec)) == 2


def test_the_guard_keeps_a_second_container_from_playing(runner: StubRunner, place: Place) -> None:
    spec = place()
    runner.start(spec)
    runner.remove("e1")
    runner.start(spec)
    assert (len(records(spec)), runner.inspect("e1").exit_code) == (2, 97)


def test_another_runner_on_the_same_root_sees_the_same(runner: StubRunner, place: Place, tmp_path: Path) -> None:
    runner.start(place())
    assert StubRunner(tmp_path / "stub").executions() == {"e1": Phase.EXITED}


def test_a_removed_execution_is_absent(runner: StubRunner, place: Place) -> None:
    runner.start(place())
    runner.remove("e1")
    assert (runner.inspect("e1").phase, runner.executions()) == (Phase.ABSENT, {})


def test_a_start_without_a_brief_is_refused(runner: StubRunner, tmp_path: Path) -> None:
    with pytest.raises(SpecificationRefused):
        runner.start(ContainerSpec("e2", "none", tmp_path, tmp_path / "gone", tmp_path, tmp_path, 60))
