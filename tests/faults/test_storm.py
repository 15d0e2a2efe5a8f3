"""A short storm over a real stack: everything that was wanted is done, once, whatever was done to the stack."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests import needs
from tests.faults.levers import FAKETIME
from tests.faults.load import install
from tests.faults.plan import KINDS
from tests.faults.stage import Stage
from tests.faults.storm import Length, Report, Settings, Storm
from tests.faults.table import as_text
from tests.stack.live import Row, measured

pytestmark = [
    pytest.mark.docker,
    pytest.mark.xdist_group("storm"),
    pytest.mark.timeout(600),
    pytest.mark.root,
]

FAULTS = 40
LONG = {"power_cut"}
KINDS_HERE = [name for name, kind in KINDS.items() if not kind.needs and name not in LONG]
CLOCKS = ["clock_behind"] if FAKETIME else []


@dataclass
class Past:
    """A storm that is over, and what it has left in the database."""

    report: Report
    runs: list[Row]
    executions: list[Row]


@pytest.fixture(scope="module")
def storm(image: str) -> Iterator[Past]:
    stage = Stage(image=image)
    try:
        stage.up()
        install(stage.add_pipeline)
        settings = Settings(seed=20, length=Length(injected=FAULTS), width=6, kinds=[*KINDS_HERE, *CLOCKS])
        report = Storm(stage, settings, say=measured).blow()
        measured(as_text(report.lines, skipped=report.skipped))
        yield Past(
            report,
            stage.rows("SELECT id, status FROM runs_run"),
            stage.rows("SELECT id, status, lease_token FROM executions_execution"),
        )
    finally:
        stage.close(keep=False)


def test_nothing_is_violated_by_a_storm(storm: Past) -> None:
    assert [str(violation) for violation in storm.report.violations] == []


def test_as_many_faults_were_injected_as_were_asked_for(storm: Past) -> None:
    assert storm.report.lines[-1].injected == FAULTS


def test_every_injected_fault_is_survived(storm: Past) -> None:
    assert all(line.survived == line.injected for line in storm.report.lines)


def test_workers_whose_clock_was_off_took_part(storm: Past) -> None:
    if not CLOCKS:
        needs.lacks(needs.Need.CLOCK)
    assert {line.fault for line in storm.report.lines if line.injected} & set(CLOCKS)


def test_the_storm_has_hit_runs_at_work_and_workers_that_held_them(storm: Past) -> None:
    assert len(storm.runs) >= 6
    assert any(execution["lease_token"] > 1 for execution in storm.executions)
    assert storm.report.lines[-1].recovery


def test_all_runs_of_the_storm_have_ended(storm: Past) -> None:
    assert {run["status"] for run in storm.runs} <= {"succeeded", "failed", "cancelled"}
