"""Reading runs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.contrib.auth.models import AnonymousUser
from django.db.models import QuerySet
from django.utils import timezone

from djinn.accounts.models import Role, User
from djinn.executions.models import Execution
from djinn.executions.states import Reason
from djinn.pipelines.attempts import INFRASTRUCTURE
from djinn.pipelines.flow import Past, Status
from djinn.providers.selectors import Bill, add_bills, bills_of
from djinn.runs.models import Run, StepRun
from djinn.runs.states import StepStatus


def runs_seen_by(user: User | AnonymousUser) -> QuerySet[Run]:
    """The runs that the person may see: all for a viewer, else those that they started."""
    if not user.is_authenticated:
        return Run.objects.none()
    return Run.objects.all() if user.has_role(Role.VIEWER) else Run.objects.filter(created_by=user)


def may_read_stream(user: User, stream: str) -> bool:
    """Whether the person may read a run's stream."""
    number = stream.removeprefix("run-")
    return number.isascii() and number.isdigit() and len(number) < 19 and runs_seen_by(user).filter(pk=number).exists()


PAST = ("step", "visit", "attempt", "status", "reason", "outputs", "item", "item_value", "bases")


def history_of(run: Run) -> list[Past]:
    """The run's step runs as the flow sees them; the position of each, from 1, is its number."""
    return [_past(*row) for row in run.step_runs.order_by("number").values_list(*PAST)]


def past_of(step_run: StepRun) -> Past:
    """One step run as the flow sees it."""
    return _past(*(getattr(step_run, name) for name in PAST))


def _past(
    step: str, visit: int, attempt: int, status: str, reason: str, outputs: Any, item: str, value: Any, bases: Any
) -> Past:
    return Past(step, visit, attempt, Status(status), reason, outputs, item, value, tuple(bases))


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


SHOWN = ("execution__status", "execution__changes", "execution__origin_snapshot", "execution__result_snapshot")
"""What is read of each execution: there may be a thousand of them, and a diff may be as large as a megabyte."""


def run_view(run: Run) -> RunView:
    """Everything about one run but its log."""
    own = [field.attname for field in StepRun._meta.concrete_fields]
    rows = list(run.step_runs.select_related("execution").only(*own, *SHOWN).order_by("number"))
    bills = bills_of(row.execution_id for row in rows if row.execution_id is not None)
    steps = tuple(StepView(row, bills.get(row.execution_id or 0, Bill())) for row in rows)
    diffs = run.step_runs.exclude(execution__result_snapshot="").order_by("-number")
    diff = diffs.filter(execution__isnull=False).values_list("execution__run_diff", flat=True).first()
    return RunView(run, steps, add_bills(step.bill for step in steps), diff or "")


def duration_of(start: datetime | None, end: datetime | None) -> timedelta | None:
    """From start to end, or to now; None before the start."""
    return None if start is None else (end or timezone.now()) - start


def agent_names(run: Run) -> dict[str, Any]:
    """The agents' names as people know them, by the name that steps use."""
    return {folder: agent["name"] for folder, agent in run.agents.items()}
