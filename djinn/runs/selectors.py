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


def history_of(run: Run) -> list[Past]:
    """The run's step runs as the flow sees them."""
    rows = run.step_runs.order_by("number").values_list("step", "visit", "attempt", "status", "reason", "outputs")
    return [
        Past(step, visit, attempt, Status(status), reason, outputs)
        for step, visit, attempt, status, reason, outputs in rows
    ]


def attempt_before(step_run: StepRun) -> StepRun | None:
    """The failed attempt that this one repeats."""
    return StepRun.objects.filter(
        run=step_run.run_id, step=step_run.step, visit=step_run.visit, attempt=step_run.attempt - 1
    ).first()


def base_snapshot_of(run: Run) -> str:
    """What the workspace of the run's next step begins with: what the last step that succeeded left; empty at first."""
    done = run.step_runs.filter(status=StepStatus.SUCCEEDED, execution__isnull=False).order_by("-number").first()
    if done is not None and done.execution is not None:
        return done.execution.result_snapshot
    return ""


def host_of(run: Run) -> str:
    """The host that the run's next step needs, since it has what steps left in the workspace; empty while none has.

    A step that failed left nothing that is needed: when its host is lost, another one may begin anew.
    """
    rows = run.step_runs.filter(status=StepStatus.SUCCEEDED).exclude(execution__host="").exclude(execution=None)
    return rows.order_by("-number").values_list("execution__host", flat=True).first() or ""


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


def run_view(run: Run) -> RunView:
    """Everything about one run but its log."""
    rows = list(run.step_runs.select_related("execution").order_by("number"))
    bills = bills_of(row.execution_id for row in rows if row.execution_id is not None)
    steps = tuple(StepView(row, bills.get(row.execution_id or 0, Bill())) for row in rows)
    diffs = [row.execution.run_diff for row in rows if row.execution and row.execution.result_snapshot]
    return RunView(run, steps, add_bills(step.bill for step in steps), diffs[-1] if diffs else "")


def duration_of(start: datetime | None, end: datetime | None) -> timedelta | None:
    """From start to end, or to now; None before the start."""
    return None if start is None else (end or timezone.now()) - start


def agent_names(run: Run) -> dict[str, Any]:
    """The agents' names as people know them, by the name that steps use."""
    return {folder: agent["name"] for folder, agent in run.agents.items()}
