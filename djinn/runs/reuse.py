"""Which results of an earlier run stand when a new one goes on from it: plain functions of a definition and a history.

Numbers are those of step runs: their position in the history, from 1. Nothing that is open is ever kept.
"""

from __future__ import annotations

from collections.abc import Iterable

from djinn.core.errors import Conflict, UserError
from djinn.executions.states import Reason
from djinn.pipelines.history import History, Past, Status, named
from djinn.pipelines.names import ancestors_of
from djinn.pipelines.report import suggestion
from djinn.pipelines.schema import Pipeline, Step

FAILURES = frozenset({Status.FAILED, Status.CANCELLED})


def kept_on_retry(pipeline: Pipeline, history: History, reason: str) -> list[int]:
    """What stands when only what failed or was cancelled is done again; `reason` is why the run ended.

    Routed: all before the last visit, when that failed. Graph: all but what failed and what needs that.
    """
    if pipeline.family == "graph":
        return _kept_in_graph(pipeline, history, {}, frozenset())
    if not history:
        return []
    last = history[-1]
    if last.status in FAILURES or reason in (Reason.RETRIES, Reason.UNMATCHED):
        return _before(history, last)
    return list(range(1, len(history) + 1))


def kept_on_rerun(
    pipeline: Pipeline, history: History, step_id: str, item: str = "", visit: int | None = None
) -> list[int]:
    """What stands when the run begins again at a step: at its last visit, or the last one of `item`, or at `visit`.

    Routed: all before that visit. Graph: all but the step and what needs it, and but what failed beside it, which would
    fail the new run too. Raises `UserError` for a step that is not there, `Conflict` for one that never ran.
    """
    step = _find(pipeline, step_id)
    ran = [
        past
        for past in history
        if past.step == step_id
        and past.status is not Status.SKIPPED
        and item in ("", past.item)
        and visit in (None, past.visit)
    ]
    if not ran:
        name = named(step_id, item) + (f" visit {visit}" if visit is not None else "")
        raise Conflict(f"Step {name} never ran: there is nothing to run again.")
    if pipeline.family == "routed":
        return _before(history, ran[-1])
    before = frozenset(other.id for other in ancestors_of(pipeline, step))
    return _kept_in_graph(pipeline, history, {step_id: item}, before)


def _find(pipeline: Pipeline, step_id: str) -> Step:
    ids = [step.id for step in pipeline.steps]
    if step_id not in ids:
        wrong = f"is no step of this pipeline{suggestion(step_id, ids)}"
        raise UserError(f"{step_id!r} {wrong}.", details={"step": wrong})
    return pipeline.step(step_id)


def _before(history: History, visit: Past) -> list[int]:
    """All before the first try of that visit."""
    wanted = (visit.step, visit.item, visit.visit)
    first = [(past.step, past.item, past.visit) for past in history].index(wanted)
    return list(range(1, first + 1))


def _kept_in_graph(pipeline: Pipeline, history: History, chosen: dict[str, str], before: frozenset[str]) -> list[int]:
    """All but the chosen steps or items, what went wrong elsewhere than in `before`, and what needs those."""
    latest = {(past.step, past.item): past for past in history}
    again = {
        (past.step, past.item)
        for past in latest.values()
        if _is_chosen(past, chosen) or (past.step not in before and _went_wrong(pipeline, past))
    }
    after = _needing(pipeline, {name for name, _ in again} | set(chosen))
    return [
        number
        for number, past in enumerate(history, 1)
        if past.step not in after and (past.step, past.item) not in again
    ]


def _is_chosen(past: Past, chosen: dict[str, str]) -> bool:
    return past.step in chosen and chosen[past.step] in ("", past.item)


def _went_wrong(pipeline: Pipeline, past: Past) -> bool:
    is_tolerated = past.status is Status.FAILED and pipeline.step(past.step).continue_on_error
    return not past.status.is_final or (past.status in FAILURES and not is_tolerated)


def _needing(pipeline: Pipeline, names: Iterable[str]) -> set[str]:
    """Every step that needs one of these, directly or through others."""
    found: set[str] = set()
    waiting = set(names)
    while waiting:
        waiting = {step.id for step in pipeline.steps if waiting.intersection(step.needs)} - found
        found |= waiting
    return found
