"""The sweep: rings again for every row that waits too long. It decides nothing, so ringing too often does no harm.

A thread of each control worker sweeps every 2 s; an advisory lock lets one at a time. It needs no broker to run, and
what it rings is only a hint like any other.
"""

from __future__ import annotations

from datetime import timedelta
from functools import reduce
from operator import or_

import structlog
from django.conf import settings
from django.db import connection, transaction
from django.db.models import DurationField, Exists, OuterRef, Q, QuerySet, Value

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
    messages_in,
    ring_advance,
    ring_execute,
    ring_settle,
    ring_step,
)
from djinn.runs.models import Run, StepRun
from djinn.runs.states import RUN_FINAL, RUN_OPEN, STEP_FINAL, STEP_OPEN, RunStatus, StepStatus

log = structlog.get_logger(__name__)

LOCK = 0x646A696E
"""Key of the advisory lock: "djin" in ASCII."""
LATE_SECONDS = 3.0
"""After how long a row that should move by itself counts as forgotten."""
AT_ONCE = 500
FEW = 20
"""For so many of a kind, the oldest, is rung while the control workers have a queue before them already."""


def sweep() -> int:
    """Ring for what waits too long; how often. None at all when another worker sweeps right now."""
    with transaction.atomic():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [LOCK])
            row = cursor.fetchone()
        if not (row and row[0]):
            return 0
        _give_up_lost_hosts()
        _give_up_forsaken()
        fault("sweep.before_ring")
        most = AT_ONCE if messages_in(CONTROL) < QUIET else FEW
        rung = _ring_runs(most) + _ring_queued(most) + _ring_unattended() + _ring_ended(most) + ring_decided()
        fault("sweep.before_commit")
    expire_due()  # in turns of their own: the transaction above holds rows that a turn must not wait for
    close_forsaken_calls()
    stop_overdue()
    if rung:
        log.info("swept", rung=rung)
    return rung


def _ring_runs(most: int) -> int:
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
    ids = list(runs.order_by("pk").values_list("pk", flat=True)[:most])
    for pk in ids:
        ring_advance(pk)
    return len(ids)


def _within_paused() -> Q:
    """Runs that are a part of a paused one: they are rung when that one goes on."""
    above = ("parent__run__" * level for level in range(1, DEEPEST + 1))
    return reduce(or_, (Q(**{f"{path}id__isnull": False, f"{path}paused_at__isnull": False}) for path in above))


def _ring_queued(most: int) -> int:
    """Step runs without an execution that are due: never rung, rung in vain, or a retry whose time has come."""
    is_due = Q(not_before=None, queued_at__lt=_ago(LATE_SECONDS)) | Q(not_before__lt=DatabaseClock())
    rows = StepRun.objects.filter(is_due, status=StepStatus.QUEUED, execution=None, run__cancel_requested_at=None)
    ids = list(rows.order_by("pk").values_list("pk", flat=True)[:most])
    for pk in ids:
        ring_step(pk)
    return len(ids)


def _ring_unattended() -> int:
    """Executions whose worker is silent, unless their host's queue is crowded; while it is quiet, also those that no
    worker has taken."""
    rows = StepRun.objects.filter(status__in=STEP_OPEN, execution__in=_forgotten())
    found = list(rows.values_list("pk", "execution__host", "execution__lease_expires_at")[:AT_ONCE])
    waiting = {host: messages_in(agents_queue(host)) for host in {host for _, host, _ in found}}
    ringing = [(pk, host) for pk, host, lease in found if waiting[host] < (CROWD if lease else QUIET)]
    for pk, host in ringing:
        ring_execute(pk, host=host)
    return len(ringing)


def _ring_ended(most: int) -> int:
    """Step runs whose execution, or the run of the pipeline that they use, has ended without a word of it."""
    is_late = Q(execution__status__in=FINAL, execution__ended_at__lt=_ago(LATE_SECONDS / 3)) | Q(
        child__status__in=RUN_FINAL, child__ended_at__lt=_ago(LATE_SECONDS / 3)
    )
    rows = StepRun.objects.filter(is_late, status__in=STEP_OPEN)
    ids = list(rows.order_by("pk").values_list("pk", flat=True)[:most])
    for pk in ids:
        ring_settle(pk)
    return len(ids)


def _forgotten() -> QuerySet[Execution]:
    """An expired lease at once; an execution that nobody claimed yet after a while."""
    never = Q(lease_expires_at=None) & Q(created_at__gte=_ago(LATE_SECONDS))
    return unattended(0).exclude(never)


def _give_up_lost_hosts() -> None:
    for execution in unattended(settings.HOST_LOST_SECONDS).exclude(host="")[:AT_ONCE]:
        if _has_living_worker(execution.host):
            continue
        text = f"no worker of host {execution.host} was heard of for {settings.HOST_LOST_SECONDS:.0f} s"
        if give_up(execution=execution, message=text):
            fault("give_up.after")
            log.error("execution_given_up", execution=execution.pk, host=execution.host)
            _let_go_of_host(execution)


def _let_go_of_host(execution: Execution) -> None:
    """Let another host begin the run's workspace anew, when the lost one holds nothing of it that is needed."""
    number = execution.workspace.removeprefix("run-")
    if not number.isdigit():
        return
    kept = Execution.objects.filter(workspace=execution.workspace).exclude(result_snapshot="")
    if not kept.exists():
        Run.objects.filter(pk=number, host=execution.host).update(host="")


def _give_up_forsaken() -> None:
    """Executions that nobody will go on with, since their step run has ended without them."""
    for execution in unattended(LATE_SECONDS).filter(step_run__status__in=STEP_FINAL)[:AT_ONCE]:
        if give_up(execution=execution, message="its step run ended without it"):
            log.warning("execution_forsaken", execution=execution.pk)


def _has_living_worker(host: str) -> bool:
    return Execution.objects.filter(host=host, lease_expires_at__gt=DatabaseClock()).exists()


def _ago(seconds: float) -> object:
    return DatabaseClock() - Value(timedelta(seconds=seconds), output_field=DurationField())
