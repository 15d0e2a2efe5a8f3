"""The table of a storm: what it counts where."""

from __future__ import annotations

import pytest

from tests.faults.seen import Violation
from tests.faults.table import HEADINGS, Injection, as_text, percentile, recovery, rows, run_of

KINDS = ("web_killed", "redis_flushed", "postgres_crashed")
INJECTIONS = [
    Injection("web_killed", 100.0, frozenset({1, 2})),
    Injection("web_killed", 110.0, frozenset({2})),
    Injection("redis_flushed", 105.0, frozenset({1})),
]
EVENTS = {1: [99.0, 101.0, 105.0, 109.0], 2: [100.5, 112.0]}


def line_of(name: str, *violations: tuple[int | None, Violation]) -> dict[str, str]:
    found = next(row for row in rows(KINDS, INJECTIONS, EVENTS, violations) if row.fault == name)
    return dict(zip(HEADINGS, found.cells(), strict=True))


@pytest.mark.parametrize(
    ("values", "share", "expected"),
    [([5.0], 0.5, 5.0), ([1.0, 2.0], 0.5, 1.0), ([1.0, 2.0, 3.0], 0.5, 2.0), (list(range(1, 201)), 0.99, 198)],
)
def test_a_percentile_is_of_the_nearest_rank(values: list[float], share: float, expected: float) -> None:
    assert percentile(values, share) == expected


def test_recovery_is_the_time_to_the_next_event_of_each_touched_run() -> None:
    assert sorted(recovery(INJECTIONS[0], EVENTS)) == [0.5, 1.0]


def test_an_event_at_the_very_moment_of_the_fault_is_no_recovery() -> None:
    assert recovery(INJECTIONS[2], EVENTS) == [4.0]


def test_a_run_that_never_went_on_has_no_recovery() -> None:
    assert recovery(Injection("web_killed", 200.0, frozenset({1})), EVENTS) == []


def test_without_violations_everything_injected_has_survived() -> None:
    line = line_of("web_killed")
    assert (line["injected"], line["survived"]) == ("2", "2")
    assert (line["recovery p50"], line["p99"]) == ("1.00 s", "2.00 s")


def test_a_fault_whose_run_has_a_violation_is_not_survived() -> None:
    line = line_of("web_killed", (1, Violation("I5", "run 1", "is still open")))
    assert (line["injected"], line["survived"], line["lost"]) == ("2", "1", "1")


def test_a_violation_of_another_run_does_not_count_in_a_line() -> None:
    assert line_of("redis_flushed", (2, Violation("I5", "run 2", "is still open")))["lost"] == "0"


@pytest.mark.parametrize(
    ("invariant", "column"),
    [("I5", "lost"), ("I4", "lost"), ("outcome", "lost"), ("intent", "lost"), ("I1", "doubled"), ("I3", "doubled"),
     ("I6", "orphans"), ("I11", "orphans"), ("I2", "other"), ("I10", "other"), ("detach", "other")],
)  # fmt: skip
def test_each_violation_has_its_column(invariant: str, column: str) -> None:
    line = line_of("all", (1, Violation(invariant, "run 1", "")))
    counts = {name: line[name] for name in ("lost", "doubled", "orphans", "other")}
    assert counts == {**dict.fromkeys(counts, "0"), column: "1"}


def test_a_violation_of_the_whole_stack_counts_in_the_line_of_all_alone() -> None:
    violation = (None, Violation("I11", "stack", "a socket is left"))
    assert line_of("all", violation)["orphans"] == "1"
    assert line_of("web_killed", violation)["orphans"] == "0"


def test_a_kind_that_was_never_done_has_a_line_with_no_figures() -> None:
    line = line_of("postgres_crashed")
    assert (line["injected"], line["recovery p50"], line["p99"]) == ("0", "-", "-")


@pytest.mark.parametrize(
    ("subject", "run"),
    [("run 3", 3), ("step run 30", 3), ("execution 300", 3), ("execution 999", None), ("stack", None)],
)
def test_a_violation_is_traced_to_its_run(subject: str, run: int | None) -> None:
    assert run_of(Violation("I5", subject, ""), steps={30: 3}, executions={300: 3}) == run


def test_the_text_has_a_line_for_each_kind_one_for_all_and_one_for_what_was_not_done() -> None:
    lines = as_text(rows(KINDS, INJECTIONS, EVENTS, []), skipped={"clock_ahead": "no libfaketime"}).splitlines()
    begins = [line.split()[0] for line in lines if not line.startswith("-")]
    assert begins == ["fault", "postgres_crashed", "redis_flushed", "web_killed", "all", "not"]
    assert "clock_ahead: no libfaketime" in lines[-1]
