"""Rows as the tests of the pages need them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

from django.db import transaction
from django.test import Client
from django.utils import timezone

from djinn.accounts.models import Role, User
from djinn.events.log import NewEvent, append, open_stream
from djinn.executions.models import Execution
from djinn.executions.states import ExecutionStatus
from djinn.providers.models import ModelCall
from djinn.runs.models import Approval, Run, StepRun

Browser = Callable[[User | None], Client]

DIFF = """\
diff --git a/notes.txt b/notes.txt
index 1111111..2222222 100644
--- a/notes.txt
+++ b/notes.txt
@@ -1,2 +1,2 @@
 kept
-old line
+new line
"""


def make_user(name: str, role: Role = Role.NONE, **fields: Any) -> User:
    """A person who may log in with the password `correct horse`."""
    return User.objects.create_user(name, password="correct horse", role=role, **fields)


def make_run(user: User | None = None, *, pipeline: str = "review", **fields: Any) -> Run:
    """A queued run and its stream, which tells that it was queued."""
    run = Run.objects.create(
        **{"pipeline": pipeline, "definition": {}, "digest": "0" * 64, "created_by": user, **fields}
    )
    with transaction.atomic():
        open_stream(run.stream)
        append(run.stream, [NewEvent("run_queued", {"pipeline": pipeline, "by": str(user)})])
    run.refresh_from_db()
    return run


def make_step(run: Run, step: str = "build", **fields: Any) -> StepRun:
    """A running step run with an execution, told in the log as the engine tells it; the run is running from then on."""
    with transaction.atomic():
        if not run.step_runs.exists():
            Run.objects.filter(pk=run.pk).update(status="running", started_at=timezone.now())
            append(run.stream, [NewEvent("run_started")])
        execution = Execution.objects.create(
            stream=run.stream, image="image", timeout_seconds=60, lease_expires_at=timezone.now(), status="running"
        )
        row = StepRun.objects.create(
            run=run,
            number=run.step_runs.count() + 1,
            step=step,
            visit=fields.pop("visit", 1),
            attempt=fields.pop("attempt", 1),
            because=fields.pop("because", "it is the first step"),
            status="running",
            started_at=timezone.now(),
            execution=execution,
            **fields,
        )
        append(run.stream, [NewEvent("step_queued", {**tags(row), "because": row.because, "delay_seconds": 0})])
        append(run.stream, [NewEvent("step_started", {**tags(row), "host": "here"})])
    run.refresh_from_db()
    return row


def make_approval(run: Run, *, by: Sequence[str] = ("somebody",), **fields: Any) -> Approval:
    """An open question of a step run that waits for it."""
    number = run.step_runs.count() + 1
    row = StepRun.objects.create(run=run, number=number, step="gate", visit=1, attempt=1, status="waiting")
    shown = {"outputs": {"RESULT": "good"}, "diff": DIFF}
    columns = {"question": "Ship it?", "shown": shown, "digest": "0" * 64, **fields}
    return Approval.objects.create(step_run=row, by=list(by), **columns)


def tags(row: StepRun) -> dict[str, Any]:
    """What events of a step run carry."""
    return {"step_run": row.pk, "step": row.step, "visit": row.visit, "attempt": row.attempt}


def tell(row: StepRun, *events: tuple[str, dict[str, Any]]) -> int:
    """Append journal records of the step run; the last sequence number."""
    with transaction.atomic():
        return append(row.run.stream, [NewEvent(kind, {**data, **tags(row)}) for kind, data in events])


def tell_run(run: Run, events: Sequence[NewEvent]) -> int:
    """Append events of the run itself; the last sequence number."""
    with transaction.atomic():
        return append(run.stream, events)


def end_step(row: StepRun, status: str = "succeeded", **fields: Any) -> None:
    """The step run's end, in its row and in the log."""
    assert row.execution is not None
    now = timezone.now()
    with transaction.atomic():
        Execution.objects.filter(pk=row.execution.pk).update(
            status=ExecutionStatus.EXITED,
            ended_at=now,
            result_snapshot="f" * 40,
            diff=DIFF,
            run_diff=DIFF,
            changes=[{"path": "notes.txt", "change": "modified", "added": 1, "removed": 1}],
        )
        StepRun.objects.filter(pk=row.pk).update(status=status, ended_at=now, **fields)
        told = {name: fields[name] for name in ("reason", "message") if name in fields}
        append(row.run.stream, [NewEvent("step_finished", {**tags(row), "status": status, **told})])


def end_run(run: Run, status: str = "succeeded", **fields: Any) -> None:
    """The run's end, in its row and in the log."""
    with transaction.atomic():
        Run.objects.filter(pk=run.pk).update(status=status, ended_at=timezone.now(), **fields)
        append(run.stream, [NewEvent("run_finished", {"status": status, **fields})])
    run.refresh_from_db()


def make_call(
    row: StepRun, *, input_tokens: int = 1200, output_tokens: int = 80, cost: str | None = "0.0125"
) -> ModelCall:
    """A metered model call of the step run."""
    assert row.execution_id is not None
    return ModelCall.objects.create(
        execution=row.execution_id,
        provider="scripted",
        model="actor",
        status="answered",
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        cost_usd=None if cost is None else Decimal(cost),
    )
