"""Whether what failed is tried again."""

from __future__ import annotations

from djinn.pipelines.history import Finish, History, Past, Start, Status, named, tries_of
from djinn.pipelines.results import UNMATCHED
from djinn.pipelines.schema import Step

INFRASTRUCTURE = frozenset({"lost", "runner"})
NOT_RETRYABLE = frozenset(
    ["rejected", "image", "cancelled", "budget", "input", "visits", "retries", "conflict", "expired", "child"]
)
MAX_LOSSES = 5
MAX_BACKOFF_SECONDS = 600.0


def after_failure(step: Step, last: Past, history: History, *, lane: str) -> Start | Finish:
    """The next try of what failed last, or the end of the run as far as this step goes.

    An infrastructure loss is tried again at once without being charged to the step, up to the fifth one of a visit; a
    charged failure as the step's `retries` say. A retry begins with the files that the failed try began with.
    """
    tries = tries_of(history, last.step, last.item, last.visit)
    failures = [past.reason for past in tries if past.status is Status.FAILED]
    losses = sum(reason in INFRASTRUCTURE for reason in failures)
    charged = len(failures) - losses
    name = named(step.id, last.item)
    if last.reason in INFRASTRUCTURE:
        if losses < MAX_LOSSES:
            return _again(last, 0.0, f"again after {last.reason}", lane)
        message = f"step {name} lost its container {losses} times"
        return Finish("failed", "lost", message, last.step, last.item)
    if charged <= step.retries.max and _is_retryable(step, last.reason):
        return _again(last, _delay(step, charged), f"retry after {last.reason}", lane)
    tried = "" if charged == 1 else f" after {charged} attempts"
    message = f"step {name} failed{tried}"
    return Finish("failed", last.reason, message, last.step, last.item)


def asked_again(last: Past, result: str, *, most: int, times: int, lane: str) -> Start | Finish:
    """The next try of a step whose own result asked for one; `times` is how often it has asked in this visit."""
    name = named(last.step, last.item)
    if times > most:
        message = f"step {name} said {result} {times} times and may be tried again {most} times"
        return Finish("failed", "retries", message)
    return _again(last, 0.0, f"retry by its result ({result})", lane)


def _again(last: Past, delay_seconds: float, because: str, lane: str) -> Start:
    return Start(
        last.step, last.visit, last.attempt + 1, delay_seconds, because,
        item=last.item, item_value=last.item_value, bases=last.bases, lane=lane,
    )  # fmt: skip


def _is_retryable(step: Step, reason: str) -> bool:
    if reason in NOT_RETRYABLE or (reason == UNMATCHED and step.kind == "uses"):
        return False  # a whole pipeline is not run again for a word
    return not step.retries.on or reason in step.retries.on


def _delay(step: Step, charged: int) -> float:
    return min(MAX_BACKOFF_SECONDS, step.retries.backoff_seconds * 2.0 ** min(charged - 1, 30))
