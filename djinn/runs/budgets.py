"""What a run may use: money and tokens are kept by the gateway, the minutes of its containers here."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from math import floor

from django.db.models import F, Sum
from django.db.models.functions import Coalesce

from djinn.core.errors import DjinnError
from djinn.executions.lease import DatabaseClock
from djinn.executions.models import Execution
from djinn.executions.services import request_stop
from djinn.executions.states import OPEN, Reason
from djinn.pipelines.schema import Pipeline
from djinn.providers.budgets import open_budget
from djinn.providers.models import ModelCall
from djinn.providers.services import close_forsaken
from djinn.runs.models import Run

AT_ONCE = 500


class OutOfTime(DjinnError):
    """The run has used all the minutes of its budget."""


def open_run_budget(run: Run, pipeline: Pipeline) -> None:
    """Keep the pipeline's budget for a run that has just been stored."""
    budget = pipeline.budget
    if budget is None or (budget.usd is None and budget.tokens is None):
        return
    usd = None if budget.usd is None else Decimal(str(budget.usd))
    open_budget(scope=run.stream, usd=usd, tokens=budget.tokens)


def seconds_left(run: Run) -> int | None:
    """How long the run's next container may run; None is no bound.

    The least that is left of the run's minutes and of those of the runs that it is a part of; the containers of the
    pipelines that a run uses count as its own. A container counts from when it was ready until it ended; one that still
    runs with what it has used so far, so that parallel steps share what is left. Raises `OutOfTime` when that is
    nothing.

    What is bounded: none runs longer alone than what was left when its step was prepared. Several at once are stopped
    by `stop_overdue` when all is used; each of them may go over by the pause between two sweeps and the time to stop.
    Not counted are the wait for a worker, pauses, and getting the image and the files.
    """
    if run.parent_id is None and not (run.definition.get("budget") or {}).get("minutes"):
        return None
    left = {above: _left(above, minutes) for above, minutes in _bounded({run.pk}).items()}
    if not left:
        return None
    run_id, least = min(left.items(), key=lambda one: one[1])
    if least < 1:
        whose = "the run" if run_id == run.pk else f"run {run_id}, which this is a part of,"
        raise OutOfTime(f"{whose} has used all the minutes of its budget")
    return floor(least)


def stop_overdue() -> int:
    """Have the containers stopped of all runs that have used their minutes; how many. For the sweep."""
    running = Execution.objects.filter(status__in=OPEN, ready_at__isnull=False, step_run__isnull=False)
    bounded = _bounded(set(running.values_list("step_run__run", flat=True)))
    overdue = [_within(run_id) for run_id, minutes in bounded.items() if _left(run_id, minutes) <= 0]
    rows = Execution.objects.filter(status__in=OPEN, stop_requested_at=None, step_run__run__in=set().union(*overdue))
    return sum(request_stop(execution_id=pk, reason=Reason.BUDGET) for pk in rows.values_list("pk", flat=True))


def _bounded(run_ids: set[int]) -> dict[int, float]:
    """The minutes of these runs, and of those that they are a part of, as far as they are bounded."""
    above = run_ids
    while above := set(Run.objects.filter(step_runs__child__in=above).values_list("pk", flat=True)):
        run_ids = run_ids | above
    rows = Run.objects.filter(pk__in=run_ids, definition__budget__minutes__gt=0)
    return dict(rows.values_list("pk", "definition__budget__minutes"))


def _left(run_id: int, minutes: float) -> float:
    """Seconds; below 0 when more was used."""
    begun = Execution.objects.filter(step_run__run__in=_within(run_id), ready_at__isnull=False)
    used = begun.aggregate(total=Sum(Coalesce("ended_at", DatabaseClock()) - F("ready_at")))["total"]
    return minutes * 60 - (used or timedelta()).total_seconds()


def _within(run_id: int) -> set[int]:
    """The run and all that are a part of it."""
    found = below = {run_id}
    while below := set(Run.objects.filter(parent__run__in=below).values_list("pk", flat=True)):
        found = found | below
    return found


def close_forsaken_calls() -> int:
    """Book the model calls of executions that have ended, when their gateway could not; how many."""
    opened = ModelCall.objects.filter(status=ModelCall.Status.OPEN).values_list("execution", flat=True)[:AT_ONCE]
    ended = Execution.objects.filter(pk__in=list(opened)).exclude(status__in=OPEN)
    return close_forsaken(list(ended.values_list("pk", flat=True)))
