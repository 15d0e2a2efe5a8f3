"""The sweep: repairs rows that nobody will go on with, then rings again for every row that waits too long.

A thread of each control worker sweeps every 2 s; an advisory lock lets one at a time. The repairs need no broker: each
is a transaction of its own, or several, and one that fails holds up no other. What is rung is only a hint, decides
nothing, and is sent last, until the first failure: a broker that does not answer costs a sweep one timeout.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import reduce
from operator import or_

import structlog
from django.conf import settings
from django.db import connection, transaction
from django.db.models import DurationField, Exists, OuterRef, Q, QuerySet, Value

from djinn.core.dispatch import messages_in
from djinn.core.faults import fault
from djinn.executions.lease import DatabaseClock, unattended
from djinn.executions.models import Execution
from djinn.executions.services import give_up
from djinn.executions.states import FINAL
from djinn.runs.admission import first_ones
from djinn.runs.approvals import expire_due, ring_decided
from djinn.runs.budgets import close_forsaken_calls, stop_overdue
from djinn.runs.children import DEEPEST
from djinn.runs.dispatch import (
    CONTROL,
    CROWD,
    QUIET,
    agents_queue,
    held_back,
    ring_advance,
    ring_execute,
    ring_settle,
    ring_step,
    send_all,
)
from djinn.runs.models import Run, StepRun
from djinn.runs.states import RUN_FINAL, RUN_OPEN, STEP_FINAL, STEP_OPEN, RunStatus, StepStatus

log = structlog.get_logger(__name__)

Unattended = tuple[int, str, bool]
LOCK = 0x646A696E
"""Key of the advisory lock: "djin" in ASCII."""
TRY_LOCK = """
SELECT CASE WHEN pg_try_advisory_lock(%s)
  THEN set_config('idle_session_timeout', current_setting('idle_in_transaction_session_timeout'), false) IS NOT NULL
  ELSE false END
"""
"""A process that is frozen while it sweeps must not keep the others from it: PostgreSQL ends its idle session."""
LATE_SECONDS = 3.0
"""After how long a row that should move by itself counts as forgotten."""
AT_ONCE = 500
FEW = 20
"""For so many of a kind, the oldest, is rung while the control workers have a queue before them already."""


def sweep() -> int:
    """Repair rows, and ring for what waits too long; how many messages went out. Nothing when another one is at it."""
    with held_back() as messages:
        with _alone() as is_ours:
            if not is_ours:
                return 0
            for repair in (stop_overdue, expire_due, close_forsaken_calls, _give_up_forsaken, _give_up_lost_hosts):
                _repair(repair)
            fault("sweep.before_ring")
            unattended_ones = _unattended()
        waiting = messages_in(CONTROL, *{agents_queue(host) for _, host, _ in unattended_ones})
        if waiting is not None:
            _ring(waiting, unattended_ones)
    fault("sweep.before_send")
    rung = 0 if waiting is None else send_all(messages.values())
    if rung:
        log.info("swept", rung=rung, of=len(messages))
    return rung


@contextmanager
def _alone() -> Iterator[bool]:
    """Whether no other worker sweeps, which none begins to before the block ends, or this session does."""
    with connection.cursor() as cursor:
        cursor.execute(TRY_LOCK, [LOCK])
        (is_ours,) = cursor.fetchone() or (False,)
    try:
        yield bool(is_ours)
    finally:
        if is_ours:
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_unlock(%s)", [LOCK])
                cursor.execute("RESET idle_session_timeout")


def _repair(action: Callable[[], object]) -> None:
    """Do it; what fails is told, and tried again by the next sweep. A database that is away ends the sweep."""
    try:
        action()
    except Exception as exc:  # an edge: no repair may keep the others from being done
        log.exception("repair_failed", what=action.__name__, error=str(exc))
        if not connection.is_usable():
            raise


def _ring(waiting: dict[str, int], unattended_ones: list[Unattended]) -> None:
    """Ring for everything that is late, for little of it while the control workers are behind."""
    most = AT_ONCE if waiting[CONTROL] < QUIET else FEW
    _ring_runs(most)
    _ring_queued(most)
    for pk, host, is_held in unattended_ones:
        if waiting[agents_queue(host)] < (CROWD if is_held else QUIET):
            ring_execute(pk, host=host)
    _ring_ended(most)
    ring_decided()


def _ring_runs(most: int) -> None:
    """Runs in which nothing is open, and cancelled ones: somebody has to decide.

    Of those that wait for a place of a concurrency group only the one that comes next, however many wait.
    """
    has_open = Exists(StepRun.objects.filter(run=OuterRef("pk"), status__in=STEP_OPEN))
    waits = Q(status=RunStatus.QUEUED) & ~Q(group="")
    is_next = ~waits | Q(pk__in=first_ones())
    is_late = Q(created_at__lt=_ago(LATE_SECONDS)) & ~has_open & is_next
    is_late &= Q(paused_at=None)
    is_resumed = Q(status=RunStatus.PAUSED, paused_at=None)
    may_go_on = (is_late | is_resumed) & ~_within_paused()
    runs = Run.objects.filter(may_go_on | Q(cancel_requested_at__isnull=False), status__in=RUN_OPEN)
    for pk in runs.order_by("pk").values_list("pk", flat=True)[:most]:
        ring_advance(pk)


def _within_paused() -> Q:
    """Runs that are a part of a paused one: they are rung when that one goes on."""
    above = ("parent__run__" * level for level in range(1, DEEPEST + 1))
    return reduce(or_, (Q(**{f"{path}id__isnull": False, f"{path}paused_at__isnull": False}) for path in above))


def _ring_queued(most: int) -> None:
    """Step runs without an execution that are due: never rung, rung in vain, or a retry whose time has come."""
    is_due = Q(not_before=None, queued_at__lt=_ago(LATE_SECONDS)) | Q(not_before__lt=DatabaseClock())
    rows = StepRun.objects.filter(is_due, status=StepStatus.QUEUED, execution=None, run__cancel_requested_at=None)
    for pk in rows.order_by("pk").values_list("pk", flat=True)[:most]:
        ring_step(pk)


def _unattended() -> list[Unattended]:
    """Executions whose worker is silent, to be rung for unless their host's queue is crowded; and those that no worker
    has taken, to be rung for while it is quiet. Of each the step run, the host, and whether somebody held it."""
    rows = StepRun.objects.filter(status__in=STEP_OPEN, execution__in=_forgotten())
    found = rows.values_list("pk", "execution__host", "execution__lease_expires_at")[:AT_ONCE]
    return [(pk, host, lease is not None) for pk, host, lease in found]


def _ring_ended(most: int) -> None:
    """Step runs whose execution, or the run of the pipeline that they use, has ended without a word of it."""
    is_late = Q(execution__status__in=FINAL, execution__ended_at__lt=_ago(LATE_SECONDS / 3)) | Q(
        child__status__in=RUN_FINAL, child__ended_at__lt=_ago(LATE_SECONDS / 3)
    )
    rows = StepRun.objects.filter(is_late, status__in=STEP_OPEN)
    for pk in rows.order_by("pk").values_list("pk", flat=True)[:most]:
        ring_settle(pk)


def _forgotten() -> QuerySet[Execution]:
    """An expired lease at once; an execution that nobody claimed yet after a while."""
    never = Q(lease_expires_at=None) & Q(created_at__gte=_ago(LATE_SECONDS))
    return unattended(0).exclude(never)


def _give_up_lost_hosts() -> None:
    for execution in unattended(settings.HOST_LOST_SECONDS).exclude(host="")[:AT_ONCE]:
        if _has_living_worker(execution.host):
            continue
        text = f"no worker of host {execution.host} was heard of for {settings.HOST_LOST_SECONDS:.0f} s"
        with transaction.atomic():
            run = _locked_owner(execution)
            if not give_up(execution=execution, message=text):
                continue
            fault("give_up.after")
            log.error("execution_given_up", execution=execution.pk, host=execution.host)
            _let_go_of_host(run, execution)


def _locked_owner(execution: Execution) -> Run | None:
    """The run whose workspace it works in, locked before the execution; None for none."""
    number = execution.workspace.removeprefix("run-")
    rows = Run.objects.select_for_update().only("pk", "host")
    return rows.filter(pk=number).first() if number.isdigit() else None


def _let_go_of_host(run: Run | None, execution: Execution) -> None:
    """Let another host begin the run's workspace anew, when the lost one holds nothing of it that is needed."""
    kept = Execution.objects.filter(workspace=execution.workspace).exclude(result_snapshot="")
    if run is not None and not kept.exists():
        Run.objects.filter(pk=run.pk, host=execution.host).update(host="")


def _give_up_forsaken() -> None:
    """Executions that nobody will go on with, since their step run has ended without them."""
    for execution in unattended(LATE_SECONDS).filter(step_run__status__in=STEP_FINAL)[:AT_ONCE]:
        if give_up(execution=execution, message="its step run ended without it"):
            log.warning("execution_forsaken", execution=execution.pk)


def _has_living_worker(host: str) -> bool:
    return Execution.objects.filter(host=host, lease_expires_at__gt=DatabaseClock()).exists()


def _ago(seconds: float) -> object:
    return DatabaseClock() - Value(timedelta(seconds=seconds), output_field=DurationField())
