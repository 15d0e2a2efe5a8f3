"""Reading runs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth.models import AnonymousUser
from django.db import connection
from django.db.models import Q, QuerySet
from django.utils import timezone

from djinn.accounts.models import Role, User
from djinn.executions.models import Execution
from djinn.executions.states import Reason
from djinn.pipelines.attempts import INFRASTRUCTURE
from djinn.providers.selectors import Bill, add_bills, bill_of_all, bills_of
from djinn.runs.models import Run, StepRun
from djinn.runs.states import StepStatus


def runs_seen_by(user: User | AnonymousUser) -> QuerySet[Run]:
    """The runs that the person may see: all for a viewer, else those that they started."""
    if not user.is_authenticated:
        return Run.objects.none()
    return Run.objects.all() if user.has_role(Role.VIEWER) else Run.objects.filter(created_by=user)


_NAMES = """
WITH RECURSIVE names AS (
    (SELECT pipeline FROM runs_run ORDER BY pipeline LIMIT 1)
    UNION ALL
    SELECT (SELECT pipeline FROM runs_run WHERE pipeline > names.pipeline ORDER BY pipeline LIMIT 1)
      FROM names WHERE names.pipeline IS NOT NULL
) SELECT pipeline FROM names WHERE pipeline IS NOT NULL
"""
"""One look into the index for each name, however many runs there are."""


def pipelines_seen_by(user: User) -> list[str]:
    """The pipelines of the runs that the person may see, by name."""
    if not user.has_role(Role.VIEWER):
        own = runs_seen_by(user).order_by("pipeline")
        return list(own.values_list("pipeline", flat=True).distinct())
    with connection.cursor() as cursor:
        cursor.execute(_NAMES)
        return [name for (name,) in cursor.fetchall()]


def may_read_stream(user: User, stream: str) -> bool:
    """Whether the person may read a run's stream."""
    number = stream.removeprefix("run-")
    return number.isascii() and number.isdigit() and len(number) < 19 and runs_seen_by(user).filter(pk=number).exists()


def attempt_before(step_run: StepRun) -> StepRun | None:
    """The attempt that this one repeats: one that failed, or whose result asked for another.

    For the first one in a run that continues another it is the last one there, when that failed.
    """
    same = StepRun.objects.filter(step=step_run.step, item=step_run.item)
    if step_run.attempt > 1:
        tries = same.filter(run=step_run.run_id, visit=step_run.visit, attempt__lt=step_run.attempt)
        told = tries.exclude(reason__in=INFRASTRUCTURE).order_by("-attempt").first()
        return told or tries.order_by("-attempt").first()
    earlier = step_run.run.continues_id
    if earlier is None or same.filter(run=step_run.run_id, number__lt=step_run.number, reused_from=None).exists():
        return None
    last = same.filter(run=earlier).exclude(reason__in=INFRASTRUCTURE).order_by("-number").first()
    asked_again = last is not None and Run.objects.filter(pk=earlier, reason=Reason.RETRIES).exists()
    return last if last is not None and (last.status == StepStatus.FAILED or asked_again) else None


@dataclass(frozen=True)
class StepView:
    """A step run as pages, API and command line show it."""

    row: StepRun
    bill: Bill

    @property
    def execution(self) -> Execution | None:
        return self.row.execution

    @property
    def duration(self) -> timedelta | None:
        return duration_of(self.row.started_at, self.row.ended_at)


@dataclass(frozen=True)
class RunView:
    """A run with its step runs, their bills, and what it changed so far."""

    row: Run
    steps: tuple[StepView, ...]
    bill: Bill
    diff: str

    @property
    def duration(self) -> timedelta | None:
        return duration_of(self.row.started_at, self.row.ended_at)


UNLISTED = ("definition", "agents")
"""Columns of a run that no list and no page shows; they may be large."""
SHOWN = ("execution__status", "execution__origin_snapshot", "execution__result_snapshot")
"""What is read of each execution: there may be a thousand of them, and a diff may be as large as a megabyte."""
LEFT = ("outputs", "summary")
"""What a step run may have left in any size."""


def run_view(run: Run, *, is_whole: bool = True) -> RunView:
    """Everything about one run but its log; without what its step runs have left unless it is to be whole."""
    names = [field.attname for field in StepRun._meta.concrete_fields]
    own = [name for name in names if is_whole or name not in LEFT]
    rows = list(run.step_runs.select_related("execution").only(*own, *SHOWN).order_by("number"))
    bills = bills_of(row.execution_id for row in rows if row.execution_id is not None)
    steps = tuple(StepView(row, bills.get(row.execution_id or 0, Bill())) for row in rows)
    diffs = run.step_runs.exclude(execution__result_snapshot="").order_by("-number")
    diff = diffs.filter(execution__isnull=False).values_list("execution__run_diff", flat=True).first()
    return RunView(run, steps, add_bills(step.bill for step in steps), diff or "")


def bill_of_run(run_id: int) -> Bill:
    """What the run's own executions used, with one query."""
    return bill_of_all(StepRun.objects.filter(run=run_id, execution__isnull=False).values("execution_id"))


def results_of_steps(run_id: int, most: int) -> tuple[list[StepRun], int]:
    """The newest step runs that have left something, oldest first, with what they left; and how many more there are."""
    rich = ~Q(summary="") | ~Q(outputs={}) | (Q(execution__isnull=False) & ~Q(execution__changes=[]))
    rows = StepRun.objects.filter(rich, run=run_id)
    own = [field.attname for field in StepRun._meta.concrete_fields]
    found = list(rows.select_related("execution").only(*own, *SHOWN, "execution__changes").order_by("-number")[:most])
    return found[::-1], rows.count() - len(found)


def duration_of(start: datetime | None, end: datetime | None) -> timedelta | None:
    """From start to end, or to now; None before the start."""
    return None if start is None else (end or timezone.now()) - start


def agent_names(run: Run) -> dict[str, Any]:
    """The agents' names as people know them, by the name that steps use."""
    return {folder: agent["name"] for folder, agent in run.agents.items()}
