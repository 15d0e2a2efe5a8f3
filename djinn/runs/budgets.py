"""What a run may use: money and tokens are kept by the gateway, the minutes of its containers here."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from math import floor

from django.db.models import F, Sum

from djinn.core.errors import DjinnError
from djinn.executions.models import Execution
from djinn.executions.states import OPEN
from djinn.pipelines.schema import Pipeline, from_snapshot
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

    Containers that are open count with all the time that they may take. Raises `OutOfTime` when nothing is left.
    """
    budget = from_snapshot(run.definition).budget
    if budget is None or budget.minutes is None:
        return None
    executions = Execution.objects.filter(step_run__run=run)
    ended = executions.exclude(status__in=OPEN).aggregate(total=Sum(F("ended_at") - F("created_at")))["total"]
    held = executions.filter(status__in=OPEN).aggregate(total=Sum("timeout_seconds"))["total"]
    left = floor(budget.minutes * 60 - (ended or timedelta()).total_seconds() - (held or 0))
    if left < 1:
        raise OutOfTime(f"the run's containers have used the {budget.minutes:g} minutes of its budget")
    return left


def close_forsaken_calls() -> int:
    """Book the model calls of executions that have ended, when their gateway could not; how many."""
    opened = ModelCall.objects.filter(status=ModelCall.Status.OPEN).values_list("execution", flat=True)[:AT_ONCE]
    ended = Execution.objects.filter(pk__in=list(opened)).exclude(status__in=OPEN)
    return close_forsaken(list(ended.values_list("pk", flat=True)))
