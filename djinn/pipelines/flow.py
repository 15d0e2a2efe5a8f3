"""What starts next: one pure function of a pipeline and the step runs so far.

The engine applies its decisions, a simulator can drive it, and "why does nothing start?" is answered by `Blocked`.
No Django, no clock, no randomness.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from djinn.pipelines.schema import JSON, Pipeline, Step

INFRASTRUCTURE = frozenset({"lost", "runner"})
NOT_RETRYABLE = frozenset({"rejected", "image", "cancelled", "budget", "input", "visits"})
MAX_LOSSES = 5
MAX_BACKOFF_SECONDS = 600.0


class Status(StrEnum):
    """Where a step run is."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"

    @property
    def is_final(self) -> bool:
        return self not in (Status.QUEUED, Status.RUNNING, Status.WAITING)


@dataclass(frozen=True)
class Past:
    """One step run as flow sees it; a history holds them in the order of creation."""

    step: str
    visit: int
    attempt: int
    status: Status
    reason: str = ""
    outputs: Mapping[str, JSON] = field(default_factory=dict)


@dataclass(frozen=True)
class Start:
    """A step run to create; it may begin after `delay_seconds`."""

    step: str
    visit: int
    attempt: int
    delay_seconds: float
    because: str


@dataclass(frozen=True)
class Finish:
    """The run is over."""

    status: Literal["succeeded", "failed", "cancelled"]
    reason: str
    message: str


@dataclass(frozen=True)
class Blocked:
    """Nothing more starts now, and why."""

    step: str
    because: str


Decision = Start | Finish | Blocked


def next_steps(pipeline: Pipeline, history: Sequence[Past], *, cancelled: bool = False) -> tuple[Decision, ...]:
    """What to do now; never empty.

    Nothing starts while a step run is open, and nothing after a cancel. An infrastructure loss is tried again at once
    without being charged to the step, up to the fifth one of a visit; a charged failure by the step's `retries`.
    """
    still_open = [past for past in history if not past.status.is_final]
    if still_open:
        return tuple(Blocked(past.step, _why_blocked(past, cancelled)) for past in still_open)
    if cancelled:
        return (Finish("cancelled", "cancelled", "the run was cancelled"),)
    if not history:
        return (Start(pipeline.first_step.id, 1, 1, 0.0, "first step"),)
    last = history[-1]
    step = pipeline.step(last.step)
    if last.status is Status.FAILED:
        return (_after_failure(step, last, history),)
    if last.status is Status.CANCELLED:
        return (Finish("cancelled", "cancelled", f"step {step.id} was cancelled"),)
    return (_after_success(pipeline, step, last, history),)


def outputs_of(history: Sequence[Past]) -> dict[str, JSON]:
    """The outputs of all succeeded step runs in one namespace; the last writer wins."""
    outputs: dict[str, JSON] = {}
    for past in history:
        if past.status is Status.SUCCEEDED:
            outputs.update(past.outputs)
    return outputs


def folded(value: JSON) -> str:
    """The text by which outputs and `onResult` keys are compared: trimmed, any case, JSON for what is not text."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text.strip().casefold()


def _why_blocked(past: Past, cancelled: bool) -> str:
    why = f"{past.step} visit {past.visit} attempt {past.attempt} is {past.status}"
    return f"the run is cancelled and {why}" if cancelled else why


def _after_success(pipeline: Pipeline, step: Step, last: Past, history: Sequence[Past]) -> Decision:
    key, goto = _matched(step, last.outputs if last.status is Status.SUCCEEDED else {})
    if goto is not None:
        return _visit(pipeline.step(goto), history, f"goto from {step.id} ({key})")
    if step.on_complete is not None:
        return _visit(pipeline.step(step.on_complete), history, f"onComplete of {step.id}")
    following = None if pipeline.is_routed else pipeline.following(step.id)
    if following is not None:
        return _visit(following, history, f"next after {step.id}")
    return Finish("succeeded", "", "")


def _matched(step: Step, outputs: Mapping[str, JSON]) -> tuple[str, str | None]:
    keys = {folded(key): key for key in step.on_result}
    for name in step.outputs:
        key = keys.get(folded(outputs[name])) if name in outputs else None
        if key is not None:
            return key, step.on_result[key].goto
    return "", None


def _visit(step: Step, history: Sequence[Past], because: str) -> Decision:
    visits = max((past.visit for past in history if past.step == step.id), default=0)
    if visits >= step.max_visits:
        message = f"step {step.id} was visited {visits} times and may be visited {step.max_visits} times ({because})"
        return Finish("failed", "visits", message)
    return Start(step.id, visits + 1, 1, 0.0, because)


def _after_failure(step: Step, last: Past, history: Sequence[Past]) -> Decision:
    failures = [
        past.reason
        for past in history
        if past.step == step.id and past.visit == last.visit and past.status is Status.FAILED
    ]
    losses = sum(reason in INFRASTRUCTURE for reason in failures)
    charged = len(failures) - losses
    if last.reason in INFRASTRUCTURE:
        if losses < MAX_LOSSES:
            return Start(step.id, last.visit, last.attempt + 1, 0.0, f"again after {last.reason}")
        message = f"step {step.id} lost its container {losses} times ({last.reason}); the step itself did not fail"
        return Finish("failed", "lost", message)
    if charged <= step.retries.max and _is_retryable(step, last.reason):
        return Start(step.id, last.visit, last.attempt + 1, _delay(step, charged), f"retry after {last.reason}")
    tries = "once" if charged == 1 else f"{charged} times"
    return Finish("failed", last.reason, f"step {step.id} failed {tries}, at last with: {last.reason}")


def _is_retryable(step: Step, reason: str) -> bool:
    return reason not in NOT_RETRYABLE and (not step.retries.on or reason in step.retries.on)


def _delay(step: Step, charged: int) -> float:
    return min(MAX_BACKOFF_SECONDS, step.retries.backoff_seconds * 2.0 ** min(charged - 1, 30))
