"""Everything that is asked about a run and the runs below it to explain why something does not run.

Read level by level, each kind of row with one query however many there are of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

from django.db.models import Count, Q

from djinn.core.liveness import WorkerView, worker_views, workers_alive
from djinn.pipelines.history import Past
from djinn.runs.admission import Line
from djinn.runs.histories import histories_of
from djinn.runs.holds import cancelled_at, is_paused
from djinn.runs.models import Approval, Run, StepRun
from djinn.runs.states import RUN_OPEN, STEP_OPEN, ApprovalStatus, StepStatus

EXECUTION = ("execution__host",)


class Scene:
    """A run, the open runs that its running steps use, and those below them."""

    def __init__(self, run: Run) -> None:
        self.children: dict[int, list[Run]] = {}
        """By run: those that it uses now, by the number of the step."""
        self.paused = {run.pk} if is_paused(run) else set()
        self.cancelled = {run.pk} if cancelled_at(run) is not None else set()
        self._lines: dict[str, Line] = {}
        level, self._runs = [run], {run.pk: run}
        while level:
            level = self._below(level)

    def _below(self, level: Iterable[Run]) -> list[Run]:
        rows = Run.objects.filter(parent__run__in=level, parent__status=StepStatus.RUNNING, status__in=RUN_OPEN)
        rows = rows.select_related("parent").defer("agents", "parent__outputs", "parent__summary")
        found = list(rows.order_by("parent__number"))
        for child in found:
            above = child.parent.run_id if child.parent else 0
            self._runs[child.pk] = child
            self.children.setdefault(above, []).append(child)
            if child.paused_at is not None or above in self.paused:
                self.paused.add(child.pk)
            if child.cancel_requested_at is not None or above in self.cancelled:
                self.cancelled.add(child.pk)
        return found

    @cached_property
    def histories(self) -> dict[int, list[Past]]:
        """By run."""
        return histories_of(list(self._runs))

    @cached_property
    def waiting(self) -> dict[int, list[StepRun]]:
        """By run: the step runs that are open and do not run."""
        own = [field.attname for field in StepRun._meta.concrete_fields if field.attname not in {"outputs", "summary"}]
        rows = StepRun.objects.filter(run__in=self._runs, status__in=STEP_OPEN).exclude(status=StepStatus.RUNNING)
        found: dict[int, list[StepRun]] = {}
        for row in rows.select_related("execution").only(*own, *EXECUTION).order_by("number"):
            found.setdefault(row.run_id, []).append(row)
        return found

    @cached_property
    def questions(self) -> dict[int, tuple[Approval, int]]:
        """By step run: its open question, and how many have agreed."""
        rows = Approval.objects.filter(step_run__run__in=self._runs, status=ApprovalStatus.OPEN).defer("shown")
        rows = rows.annotate(agreed=Count("decisions", filter=Q(decisions__verdict="approve")))
        return {row.step_run_id: (row, row.agreed) for row in rows}

    @cached_property
    def _workers(self) -> list[WorkerView]:
        return worker_views()

    def has_agents_worker(self, host: str) -> bool:
        """Whether an agents worker of the host, or of any, is alive."""
        return workers_alive("agents", host, self._workers)

    def line(self, group: str) -> Line:
        """Who holds the places of the group, and who waits for them."""
        if group not in self._lines:
            self._lines[group] = Line.of(group)
        return self._lines[group]
