"""How an execution ended: one pure function over what the journal, the runner and our own intents say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from djinn.executions.states import ExecutionStatus, Reason
from djinn.runner.base import ContainerState
from runtime_image.djinn_runtime.protocol import (
    EXIT_ALREADY_STARTED,
    EXIT_FINISHED,
    EXIT_JOURNAL_BROKEN,
    EXIT_NOT_SYNCED,
    FAILURE_REASONS,
)

CANNOT_RUN = frozenset({126, 127})
"""Exit codes of a command that was not found or could not be executed (POSIX shell, 2.8.2; Docker uses the same)."""
KILLED_BY_KERNEL = 137
"""Exit code of a script that SIGKILL ended. Only the engine knows that the kernel sent it for want of memory."""
MOST_CHARACTERS = 300
"""Of a message from inside: the rest of what went wrong stands in the log."""

UNKNOWN = 255
"""What an engine tells of a container that ended while the engine itself was away."""
TOLD = frozenset({EXIT_FINISHED, EXIT_NOT_SYNCED, EXIT_ALREADY_STARTED, UNKNOWN})
"""Exit codes that go with a record `finished`, of this or of an earlier start."""
FIRST_SIGNAL = 128
"""From here on exit codes stand for signals."""


@dataclass(frozen=True)
class Ending:
    """The final state. Succeeded means EXITED without a reason."""

    status: ExecutionStatus
    reason: Reason = Reason.NONE
    message: str = ""


def ending_of(
    *, outcome: Mapping[str, Any] | None, state: ContainerState, stop_reason: str, was_ready: bool, forged: str = ""
) -> Ending:
    """The ending. The journal's last record decides when there is one, unless something shows that it is not genuine.

    `forged` says what in the journal the runtime cannot have written.
    """
    if forged:
        return _forged(forged)
    if outcome is not None:
        return _contradicted(outcome, state, stop_reason) or _stated(outcome, state, stop_reason)
    if stop_reason:
        return Ending(ExecutionStatus.KILLED, Reason(stop_reason), "it was stopped before it could tell how far it was")
    if state.out_of_memory and state.exit_code == KILLED_BY_KERNEL:
        return Ending(ExecutionStatus.EXITED, Reason.OUT_OF_MEMORY, "the container used all the memory that it may use")
    if state.exit_code == EXIT_JOURNAL_BROKEN:
        return Ending(ExecutionStatus.EXITED, Reason.DISK, "the journal could not be written: the disk is full")
    if state.exit_code in CANNOT_RUN and not was_ready:
        return Ending(
            ExecutionStatus.EXITED, Reason.IMAGE, "the image cannot run python3, which the agent runtime needs"
        )
    return Ending(ExecutionStatus.LOST, Reason.LOST, f"the container is {_words(state)}, and its journal has no end")


def _contradicted(outcome: Mapping[str, Any], state: ContainerState, stop_reason: str) -> Ending | None:
    """Another ending than the one that the last record states, when the runtime's exit code does not go with it.

    The runtime has ended with one of a few codes when it has written that record. A signal is not its own code: it
    comes from outside, from the kernel, from us, or from a script that kills what would have told on it. What such a
    record says is believed unless it is a success.
    """
    code = state.exit_code
    if code is None or code in TOLD:
        return None
    if code < FIRST_SIGNAL:
        return _forged(f"its last record says how the work ended, but the runtime ended with code {code}")
    if outcome.get("status") != "succeeded":
        return None
    if stop_reason:
        return Ending(ExecutionStatus.KILLED, Reason(stop_reason), "it was stopped while it ended")
    if state.out_of_memory and code == KILLED_BY_KERNEL:
        return Ending(ExecutionStatus.EXITED, Reason.OUT_OF_MEMORY, "the container used all the memory that it may use")
    return Ending(ExecutionStatus.LOST, Reason.LOST, f"its runtime was killed (code {code}) while it ended")


def _forged(why: str) -> Ending:
    text = (
        f"The step's own record of its work was forged: {why}. Only a program that ran in the step can have done that,"
        " so nothing of the record is used. Read what the step ran before you run it again."
    )
    return Ending(ExecutionStatus.EXITED, Reason.FORGED, text)


def _stated(outcome: Mapping[str, Any], state: ContainerState, stop_reason: str) -> Ending:
    if outcome.get("status") == "succeeded":
        return Ending(ExecutionStatus.EXITED)
    error = outcome.get("error")
    error = error if isinstance(error, Mapping) else {}
    message = one_line(str(error.get("message") or "")) or "the work failed"
    stated = str(error.get("reason"))
    if stop_reason and stated in {Reason.CANCELLED, Reason.TIMEOUT}:
        return Ending(ExecutionStatus.KILLED, Reason(stop_reason), message)
    if stated == Reason.ERROR and outcome.get("exit_code") == KILLED_BY_KERNEL and state.out_of_memory:
        return Ending(ExecutionStatus.EXITED, Reason.OUT_OF_MEMORY, f"it needed more memory than its limit: {message}")
    if stated == Reason.CANCELLED:  # nobody here asked for it: somebody stopped the container by hand
        return Ending(ExecutionStatus.LOST, Reason.LOST, "the container was stopped from outside of Djinn")
    return Ending(ExecutionStatus.EXITED, Reason(stated) if stated in FAILURE_REASONS else Reason.ERROR, message)


def one_line(text: str, *, most: int = MOST_CHARACTERS) -> str:
    """The text without line breaks, cut with an ellipsis."""
    line = " ".join(text[: 4 * most].split())
    return line if len(line) <= most else line[: most - 1] + "…"


def _words(state: ContainerState) -> str:
    return f"{state.phase}" if state.exit_code is None else f"{state.phase} with code {state.exit_code}"
