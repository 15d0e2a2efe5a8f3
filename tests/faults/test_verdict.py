"""The storm's own questions: was each run that was wanted made once, and did it end as its pipeline says?"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.faults.verdict import Excuses, wrong_intents, wrong_outcomes

WANTED = {1: ("linear", 10), 2: ("hungry", 11)}


def row(status: str, reason: str = "", *, run: int = 10) -> dict[str, Any]:
    """A run that was open from second 100 to second 200."""
    times = {"created_at": datetime.fromtimestamp(100, UTC), "ended_at": datetime.fromtimestamp(200, UTC)}
    return {"id": run, "status": status, "reason": reason, "message": "", **times}


def found(one: dict[str, Any], **excuses: Any) -> list[str]:
    return [violation.subject for violation in wrong_outcomes([one], WANTED, Excuses(**excuses))]


@pytest.mark.parametrize(
    ("existing", "failures", "subjects"),
    [
        ([10, 11], [], []),
        ([10, 11, 12], [], ["run 12"]),
        ([10], [], ["run 11"]),
        ([10, 11], ["intent 3: no answer"], ["stack"]),
    ],
)
def test_each_wanted_run_exists_once_and_no_other(
    existing: list[int], failures: list[str], subjects: Sequence[str]
) -> None:
    assert [violation.subject for violation in wrong_intents(WANTED, existing, failures)] == subjects


def test_one_run_for_two_who_each_wanted_one_is_found() -> None:
    violations = list(wrong_intents({1: ("linear", 10), 2: ("linear", 10)}, [10], []))
    assert [violation.subject for violation in violations] == ["run 10"]


@pytest.mark.parametrize("one", [row("succeeded"), row("failed", "out_of_memory", run=11)])
def test_a_run_that_ends_as_its_pipeline_says_is_right(one: dict[str, Any]) -> None:
    assert found(one) == []


@pytest.mark.parametrize(
    "one",
    [row("failed", "error"), row("failed", "disk"), row("failed", "lost"), row("cancelled", "cancelled"),
     row("failed", "timeout"), row("failed", "out_of_memory"), row("succeeded", run=11)],
)  # fmt: skip
def test_a_run_that_ends_otherwise_without_a_cause_is_found(one: dict[str, Any]) -> None:
    assert found(one) == [f"run {one['id']}"]


def test_a_run_that_was_cancelled_may_end_so_and_no_other() -> None:
    assert found(row("cancelled", "cancelled"), cancelled={10}) == []
    assert found(row("cancelled", "cancelled"), cancelled={11}) == ["run 10"]
    assert found(row("failed", "error"), cancelled={10}) == ["run 10"]


@pytest.mark.parametrize(("reason", "is_covered"), [("disk", True), ("error", True), ("timeout", False)])
def test_a_full_disk_excuses_what_a_full_disk_does(reason: str, is_covered: bool) -> None:
    assert (found(row("failed", reason), disk_full=[(150.0, 152.0)]) == []) is is_covered


@pytest.mark.parametrize(
    ("span", "is_covered"),
    [((50.0, 60.0), False), ((90.0, 95.0), True), ((199.0, 230.0), True), ((201.0, 210.0), False)],
)
def test_a_full_disk_excuses_only_runs_that_met_it(span: tuple[float, float], is_covered: bool) -> None:
    assert (found(row("failed", "disk"), disk_full=[span]) == []) is is_covered


@pytest.mark.parametrize(("times", "is_covered"), [(4, False), (5, True)])
def test_a_run_may_be_lost_only_when_containers_were_hurt_five_times(times: int, is_covered: bool) -> None:
    assert (found(row("failed", "lost"), losses=[150.0] * times) == []) is is_covered


def test_containers_that_were_hurt_before_and_after_a_run_do_not_excuse_it() -> None:
    assert found(row("failed", "lost"), losses=[99.0, 201.0, 150.0, 150.0, 150.0]) == ["run 10"]
