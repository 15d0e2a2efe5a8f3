"""How an execution ended, by table."""

from __future__ import annotations

from typing import Any

import pytest

from djinn.executions.ending import ending_of
from djinn.executions.states import Reason
from djinn.runner.base import ContainerState, Phase
from runtime_image.djinn_runtime.protocol import (
    EXIT_ALREADY_STARTED,
    EXIT_JOURNAL_BROKEN,
    EXIT_NOT_SYNCED,
    FAILURE_REASONS,
)
from tests.make import failed, succeeded

GONE = ContainerState(Phase.ABSENT)
CREATED = ContainerState(Phase.CREATED)


def exited(code: int, *, out_of_memory: bool = False) -> ContainerState:
    return ContainerState(Phase.EXITED, code, out_of_memory=out_of_memory)


def killed(code: int = 137) -> dict[str, Any]:
    return {**failed(), "exit_code": code}


@pytest.mark.parametrize(
    ("outcome", "state", "stop_reason", "was_ready", "expected"),
    [
        # the journal's last record decides when the runtime's exit code goes with it, or is not known
        (succeeded(), exited(0), "", True, ("exited", "")),
        (succeeded(), exited(255), "", True, ("exited", "")),
        (succeeded(), exited(EXIT_NOT_SYNCED), "", True, ("exited", "")),
        (succeeded(), exited(EXIT_ALREADY_STARTED), "", True, ("exited", "")),
        (succeeded(), GONE, "", True, ("exited", "")),
        (succeeded(), exited(0, out_of_memory=True), "", True, ("exited", "")),
        (succeeded(), exited(0), "cancelled", True, ("exited", "")),
        (failed("error"), exited(0), "", True, ("exited", "error")),
        (failed("error"), exited(0), "cancelled", True, ("exited", "error")),
        (failed("timeout"), exited(0), "", True, ("exited", "timeout")),
        (failed("timeout"), exited(0), "timeout", True, ("killed", "timeout")),
        (failed("cancelled"), exited(0), "cancelled", True, ("killed", "cancelled")),
        (failed("cancelled"), exited(0), "timeout", True, ("killed", "timeout")),
        (failed("cancelled"), exited(0), "", True, ("lost", "lost")),
        # codes with which the runtime does not end when it has written that record
        (succeeded(), exited(1), "", True, ("exited", "forged")),
        (succeeded(), exited(2), "cancelled", True, ("exited", "forged")),
        (succeeded(), exited(EXIT_JOURNAL_BROKEN), "", True, ("exited", "forged")),
        (failed("error"), exited(1), "", True, ("exited", "forged")),
        (failed("cancelled"), exited(EXIT_JOURNAL_BROKEN), "cancelled", True, ("exited", "forged")),
        # a signal may come from anybody: what it ended is no success, and nobody is accused
        (succeeded(), exited(137), "", True, ("lost", "lost")),
        (succeeded(), exited(139), "", True, ("lost", "lost")),
        (succeeded(), exited(137), "cancelled", True, ("killed", "cancelled")),
        (succeeded(), exited(143), "timeout", True, ("killed", "timeout")),
        (succeeded(), exited(137, out_of_memory=True), "", True, ("exited", "out_of_memory")),
        (failed("error"), exited(137), "", True, ("exited", "error")),
        (failed("cancelled"), exited(137), "cancelled", True, ("killed", "cancelled")),
        # what only the engine knows
        (killed(), exited(0, out_of_memory=True), "", True, ("exited", "out_of_memory")),
        (killed(), exited(0), "", True, ("exited", "error")),
        (killed(1), exited(0, out_of_memory=True), "", True, ("exited", "error")),
        # records that lie or are of the wrong shape
        (failed("lost"), exited(0), "", True, ("exited", "error")),
        (failed("no_such_reason"), exited(0), "", True, ("exited", "error")),
        ({}, exited(0), "", True, ("exited", "error")),
        ({"status": 1, "error": "text"}, exited(0), "", True, ("exited", "error")),
        ({"error": {"reason": ["x"], "message": {"y": 1}}}, exited(0), "", True, ("exited", "error")),
        # without a last record
        (None, exited(0), "", True, ("lost", "lost")),
        (None, exited(255), "", True, ("lost", "lost")),
        (None, GONE, "", True, ("lost", "lost")),
        (None, CREATED, "", False, ("lost", "lost")),
        (None, exited(137), "cancelled", True, ("killed", "cancelled")),
        (None, exited(137), "timeout", True, ("killed", "timeout")),
        (None, GONE, "error", False, ("killed", "error")),
        (None, exited(137, out_of_memory=True), "", True, ("exited", "out_of_memory")),
        (None, exited(255, out_of_memory=True), "", True, ("lost", "lost")),
        (None, exited(EXIT_JOURNAL_BROKEN), "", True, ("exited", "disk")),
        (None, exited(127), "", False, ("exited", "image")),
        (None, exited(126), "", False, ("exited", "image")),
        (None, exited(127), "", True, ("lost", "lost")),
    ],
)  # fmt: skip
def test_the_ending_follows_from_journal_engine_and_intents(
    outcome: Any, state: ContainerState, stop_reason: str, was_ready: bool, expected: tuple[str, str]
) -> None:
    ending = ending_of(outcome=outcome, state=state, stop_reason=stop_reason, was_ready=was_ready)
    assert (ending.status, ending.reason) == expected


@pytest.mark.parametrize("outcome", [None, succeeded(), failed("cancelled")])
@pytest.mark.parametrize("stop_reason", ["", "cancelled", "forged"])
def test_a_forged_journal_decides_nothing_but_that(outcome: Any, stop_reason: str) -> None:
    why = "the number 3 was used twice"
    ending = ending_of(outcome=outcome, state=exited(0), stop_reason=stop_reason, was_ready=True, forged=why)
    assert (ending.status, ending.reason) == ("exited", "forged")
    assert why in ending.message


@pytest.mark.parametrize("reason", sorted(FAILURE_REASONS - {"cancelled"}))
def test_every_reason_that_the_runtime_may_state_is_kept(reason: str) -> None:
    ending = ending_of(outcome=failed(reason, "why"), state=exited(0), stop_reason="", was_ready=True)
    assert (ending.status, ending.reason, ending.message) == ("exited", reason, "why")


def test_every_reason_of_the_runtime_is_a_reason_of_executions() -> None:
    assert not FAILURE_REASONS - set(Reason.values)


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("x" * 100_000, "x" * 299 + "…"),
        ("one\ntwo\r\n\n three\n", "one two three"),
        ("\n" * 100_000, "the work failed"),
    ],
    ids=["long", "lines", "blank"],
)
def test_a_message_is_one_short_line(message: str, expected: str) -> None:
    ending = ending_of(outcome=failed(message=message), state=exited(0), stop_reason="", was_ready=True)
    assert ending.message == expected
