"""What starts next, by tables. A history is written as `STEP.visit.attempt status`, as in `FIX.1.2 failed:timeout`."""

from __future__ import annotations

from dataclasses import replace

import pytest

from djinn.pipelines.flow import Blocked, Finish, Past, Start, Status, next_steps
from djinn.pipelines.loader import load_text
from djinn.pipelines.names import flat_outputs
from djinn.pipelines.schema import JSON, Pipeline

ROUTED = """\
id: routed
steps:
  - {id: WRITE, run: a, outputs: [draft], onComplete: REVIEW, retries: {max: 2, backoff: 10}}
  - id: REVIEW
    run: b
    outputs: [verdict, score]
    maxVisits: 2
    onResult: {YES: {goto: SHOW}, CHANGES_REQUESTED: {goto: WRITE}, 'true': {goto: SHOW}, '7': {goto: WRITE}}
  - {id: SHOW, run: c, retries: {max: 5, on: [timeout]}}
"""
LINEAR = "id: linear\nsteps: [{id: A, run: a}, {id: B, run: b, retries: 0}]"


def pipeline(text: str) -> Pipeline:
    return load_text(text, file="a.yaml").pipeline


def past(text: str, **outputs: JSON) -> Past:
    place, status = text.split(" ")
    step, visit, attempt = place.split(".")
    word, _, reason = status.partition(":")
    return Past(step, int(visit), int(attempt), Status(word), reason, outputs)


def decided(text: str, *history: Past, cancelled: bool = False) -> object:
    """The decision about what is open or comes next, without the files that it begins with; steps that were not
    reached are all blocked by something."""
    decision, *others = next_steps(pipeline(text), history, cancelled=cancelled)
    assert all(isinstance(other, Blocked) and other.blockers for other in others)
    return replace(decision, bases=()) if isinstance(decision, Start) else decision


WRITTEN = past("WRITE.1.1 succeeded")


def test_a_run_begins_with_the_first_step() -> None:
    assert decided(ROUTED) == Start("WRITE", 1, 1, 0.0, "first step")


@pytest.mark.parametrize("status", ["queued", "running", "waiting"])
def test_nothing_starts_while_a_step_run_is_open(status: str) -> None:
    assert decided(LINEAR, past(f"A.1.1 {status}")) == Blocked("A", f"A visit 1 attempt 1 is {status}")


def test_an_open_step_run_blocks_also_when_it_is_not_the_last() -> None:
    assert isinstance(decided(LINEAR, past("A.1.1 running"), past("A.1.2 failed:error")), Blocked)


@pytest.mark.parametrize(
    ("history", "decision"),
    [
        ([WRITTEN], Start("REVIEW", 1, 1, 0.0, "onComplete of WRITE")),
        ([WRITTEN, past("REVIEW.1.1 succeeded", verdict="YES")], Start("SHOW", 1, 1, 0.0, "goto from REVIEW (YES)")),
        ([WRITTEN, past("REVIEW.1.1 succeeded", verdict=" yes\n")], Start("SHOW", 1, 1, 0.0, "goto from REVIEW (YES)")),
        (
            [WRITTEN, past("REVIEW.1.1 succeeded", verdict="changes_requested")],
            Start("WRITE", 2, 1, 0.0, "goto from REVIEW (CHANGES_REQUESTED)"),
        ),
        (
            [WRITTEN, past("REVIEW.1.1 succeeded", score="YES", verdict="CHANGES_REQUESTED")],
            Start("WRITE", 2, 1, 0.0, "goto from REVIEW (CHANGES_REQUESTED)"),
        ),
        ([WRITTEN, past("REVIEW.1.1 succeeded", verdict=True)], Start("SHOW", 1, 1, 0.0, "goto from REVIEW (true)")),
        ([WRITTEN, past("REVIEW.1.1 succeeded", score=7)], Start("WRITE", 2, 1, 0.0, "goto from REVIEW (7)")),
        ([WRITTEN, past("REVIEW.1.1 skipped", verdict="YES")], Finish("succeeded", "", "")),
        ([past("SHOW.1.1 succeeded")], Finish("succeeded", "", "")),
    ],
)
def test_a_step_that_succeeded_is_followed_by(history: list[Past], decision: object) -> None:
    assert decided(ROUTED, *history) == decision


def test_a_pipeline_without_routes_goes_on_in_order_and_ends_after_the_last() -> None:
    first, second = past("A.1.1 succeeded"), past("B.1.1 succeeded")
    assert decided(LINEAR, first) == Start("B", 1, 1, 0.0, "next after A")
    assert decided(LINEAR, first, second) == Finish("succeeded", "", "")


def test_a_step_that_was_visited_too_often_fails_the_run() -> None:
    history = [past("REVIEW.1.1 succeeded"), past("REVIEW.2.1 succeeded"), past("WRITE.3.1 succeeded")]
    message = "step REVIEW was visited 2 times and may be visited 2 times (onComplete of WRITE)"
    assert decided(ROUTED, *history) == Finish("failed", "visits", message)


@pytest.mark.parametrize(
    ("history", "decision"),
    [
        (["WRITE.1.1 failed:timeout"], Start("WRITE", 1, 2, 10.0, "retry after timeout")),
        (["WRITE.1.1 failed:timeout", "WRITE.1.2 failed:error"], Start("WRITE", 1, 3, 20.0, "retry after error")),
        (
            ["WRITE.1.1 failed:error", "WRITE.1.2 failed:error", "WRITE.1.3 failed:disk"],
            Finish("failed", "disk", "step WRITE failed after 3 attempts"),
        ),
        (["B.1.1 failed:error"], Finish("failed", "error", "step B failed")),
        (["A.1.1 failed:error"], Start("A", 1, 2, 0.0, "retry after error")),
        (["SHOW.1.1 failed:timeout"], Start("SHOW", 1, 2, 0.0, "retry after timeout")),
        (["SHOW.1.1 failed:error"], Finish("failed", "error", "step SHOW failed")),
        (["WRITE.1.1 failed:lost"], Start("WRITE", 1, 2, 0.0, "again after lost")),
        (["WRITE.1.1 failed:runner"], Start("WRITE", 1, 2, 0.0, "again after runner")),
        (["WRITE.1.1 failed:lost", "WRITE.1.2 failed:error"], Start("WRITE", 1, 3, 10.0, "retry after error")),
        (
            ["WRITE.1.1 failed:error", "WRITE.1.2 failed:error", "WRITE.1.3 failed:lost"],
            Start("WRITE", 1, 4, 0.0, "again after lost"),
        ),
        ([f"WRITE.1.{n} failed:lost" for n in range(1, 5)], Start("WRITE", 1, 5, 0.0, "again after lost")),
        (
            [f"WRITE.1.{n} failed:lost" for n in range(1, 6)],
            Finish("failed", "lost", "step WRITE lost its container 5 times"),
        ),
        (
            [*(f"WRITE.1.{n} failed:lost" for n in range(1, 6)), "WRITE.2.1 failed:lost"],
            Start("WRITE", 2, 2, 0.0, "again after lost"),
        ),
    ],
)
def test_a_step_that_failed_is_followed_by(history: list[str], decision: object) -> None:
    text = LINEAR if history[0][0] in "AB" else ROUTED
    assert decided(text, *map(past, history)) == decision


@pytest.mark.parametrize("reason", ["rejected", "image", "cancelled", "budget", "input", "visits"])
def test_a_failure_that_another_try_cannot_mend_ends_the_run(reason: str) -> None:
    message = "step WRITE failed"
    assert decided(ROUTED, past(f"WRITE.1.1 failed:{reason}")) == Finish("failed", reason, message)


def test_the_wait_before_a_retry_stops_growing_at_ten_minutes() -> None:
    text = "id: a\nsteps: [{id: A, run: a, retries: {max: 20, backoff: 300}}]"
    history = [past(f"A.1.{n} failed:error") for n in range(1, 20)]
    assert decided(text, *history) == Start("A", 1, 20, 600.0, "retry after error")


def test_a_cancelled_step_run_cancels_the_run() -> None:
    assert decided(LINEAR, past("A.1.1 cancelled")) == Finish("cancelled", "cancelled", "step A was cancelled")


def test_a_cancelled_run_waits_for_what_is_open() -> None:
    blocked = Blocked("A", "the run is cancelled and A visit 1 attempt 1 is running")
    assert decided(LINEAR, past("A.1.1 running"), cancelled=True) == blocked


@pytest.mark.parametrize("history", [[], ["A.1.1 succeeded"], ["A.1.1 failed:lost"], ["A.1.1 cancelled"]])
def test_a_cancelled_run_ends_once_nothing_is_open(history: list[str]) -> None:
    decision = decided(LINEAR, *map(past, history), cancelled=True)
    assert decision == Finish("cancelled", "cancelled", "the run was cancelled")


def test_the_last_writer_of_an_output_wins_and_only_success_counts() -> None:
    history = [
        past("A.1.1 succeeded", x=1, y=1),
        past("B.1.1 succeeded", x=2),
        past("A.2.1 failed:error", x=3),
        past("A.2.2 running", x=4),
    ]
    assert flat_outputs(history) == {"x": 2, "y": 1}
