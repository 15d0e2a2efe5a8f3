"""What an agents worker does for its host: containers that must not run are stopped, ended ones are removed later."""

from __future__ import annotations

from datetime import timedelta

import structlog
from django.conf import settings
from django.db import InterfaceError, OperationalError
from django.db.models import DurationField, F, Q, Value
from django.db.models.expressions import Combinable

from djinn.core.faults import fault
from djinn.executions.lease import DatabaseClock, unattended
from djinn.executions.models import Execution
from djinn.executions.places import close_door, execution_directory, present_runner
from djinn.executions.states import FINAL, OPEN, Reason
from djinn.runner.base import Phase, Runner, RunnerError, RunnerUnavailable
from djinn.runner.files import remove_tree

log = structlog.get_logger(__name__)

COLLECTED_AT_ONCE = 100
KEEP_FULL_SECONDS = 30.0
"""How long what ended because of a full disk is kept at most: its directory may be what has filled it."""
COLLECT_AGAIN_SECONDS = 30.0
MOST_SILENT = 3
"""After so many containers in a row that the engine says nothing about, the others are left for the next time."""
RENEWALS_TO_HEAR = 1.5
"""After so many renewals of leases a worker that lives has heard that its execution shall stop."""


def tend_host() -> None:
    """Stop what must not run on this host and remove what was kept long enough."""
    runner = present_runner()
    try:
        _stop_unwanted(runner)
        collect(runner)
    except RunnerError as exc:
        log.warning("host_not_tended", error=str(exc))


def _stop_unwanted(runner: Runner) -> None:
    """Stop containers whose execution has ended or is unknown, and those that shall stop while nobody hears of it."""
    running = {int(key) for key, phase in runner.executions().items() if phase is Phase.RUNNING and key.isdigit()}
    if not running:
        return
    known = dict(Execution.objects.filter(pk__in=running).values_list("pk", "status"))
    orphans = {pk for pk in running if known.get(pk, "unknown") in FINAL | {"unknown"}}
    for pk in sorted(orphans | _unheard(running)):
        fault("unwanted.before_stop")
        log.warning("container_stopped", execution=pk, was="orphan" if pk in orphans else "abandoned")
        try:
            runner.stop(str(pk), settings.STOP_GRACE_SECONDS)
        except RunnerError as exc:  # one that cannot be stopped must not keep the others
            log.warning("container_not_stopped", execution=pk, error=str(exc))


def _unheard(running: set[int]) -> set[int]:
    """Those of them that shall stop, and whose worker does not hear of it.

    A dead worker's lease runs on for a while. A cancel does not wait for that: whoever holds the lease later finds a
    container that has ended.
    """
    heard = _ago(RENEWALS_TO_HEAR * settings.LEASE_RENEW_SECONDS)
    asked = Execution.objects.filter(stop_requested_at__lt=heard, status__in=OPEN)
    alone = unattended(0).filter(stop_requested_at__isnull=False)
    return set((asked | alone).filter(pk__in=running).values_list("pk", flat=True))


def collect(runner: Runner) -> int:
    """Remove containers and directories of executions that ended long enough ago; how many.

    Each by itself: one that cannot be removed, for whatever reason, is tried again later, behind all others.
    """
    kept, pause = _ago(settings.KEEP_CONTAINER_SECONDS), _ago(COLLECT_AGAIN_SECONDS)
    soon = _ago(min(KEEP_FULL_SECONDS, settings.KEEP_CONTAINER_SECONDS))
    rows = Execution.objects.filter(
        Q(collect_failed_at=None) | Q(collect_failed_at__lt=pause),
        Q(ended_at__lt=kept) | Q(reason=Reason.DISK, ended_at__lt=soon),
        host=settings.HOST_NAME, status__in=FINAL, collected_at=None,
    ).order_by(F("collect_failed_at").asc(nulls_first=True), "pk")  # fmt: skip
    count = silent = 0
    for execution in rows[:COLLECTED_AT_ONCE]:
        try:
            _remove(execution, runner)
        except (OperationalError, InterfaceError):
            raise
        except Exception as exc:  # the edge of one execution's things, which were made by somebody else
            log.warning("not_collected", execution=execution.pk, error=str(exc), kind=type(exc).__name__)
            Execution.objects.filter(pk=execution.pk).update(collect_failed_at=DatabaseClock())
            silent = silent + 1 if isinstance(exc, RunnerUnavailable) else 0
            if silent == MOST_SILENT:
                break
        else:
            count, silent = count + 1, 0
    return count


def _remove(execution: Execution, runner: Runner) -> None:
    fault("collect.before_remove")
    runner.remove(execution.key)
    fault("collect.after_remove")
    close_door(execution)
    remove_tree(execution_directory(execution))
    Execution.objects.filter(pk=execution.pk).update(collected_at=DatabaseClock())


def _ago(seconds: float) -> Combinable:
    return DatabaseClock() - Value(timedelta(seconds=seconds), output_field=DurationField())


def remove_all_containers(runner: Runner) -> int:
    """Stop and remove every container of this installation on this host; how many were running."""
    phases = runner.executions()
    for key in phases:
        runner.remove(key)
    return sum(1 for phase in phases.values() if phase is Phase.RUNNING)
