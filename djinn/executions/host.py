"""What an agents worker does for its host: containers that must not run are stopped, ended ones are removed later."""

from __future__ import annotations

import shutil
from datetime import timedelta

import structlog
from django.conf import settings
from django.db.models import Value
from django.db.models.fields import DurationField

from djinn.core.faults import fault
from djinn.executions.lease import DatabaseClock, unattended
from djinn.executions.models import Execution
from djinn.executions.places import close_door, execution_directory, present_runner
from djinn.executions.states import FINAL, OPEN
from djinn.runner.base import Phase, Runner, RunnerError

log = structlog.get_logger(__name__)

COLLECTED_AT_ONCE = 100
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
        runner.stop(str(pk), settings.STOP_GRACE_SECONDS)


def _unheard(running: set[int]) -> set[int]:
    """Those of them that shall stop, and whose worker does not hear of it.

    A dead worker's lease runs on for a while. A cancel does not wait for that: whoever holds the lease later finds a
    container that has ended.
    """
    heard = Value(timedelta(seconds=RENEWALS_TO_HEAR * settings.LEASE_RENEW_SECONDS), output_field=DurationField())
    asked = Execution.objects.filter(stop_requested_at__lt=DatabaseClock() - heard, status__in=OPEN)
    alone = unattended(0).filter(stop_requested_at__isnull=False)
    return set((asked | alone).filter(pk__in=running).values_list("pk", flat=True))


def collect(runner: Runner) -> int:
    """Remove containers and directories of executions that ended long enough ago; how many."""
    kept = Value(timedelta(seconds=settings.KEEP_CONTAINER_SECONDS), output_field=DurationField())
    rows = Execution.objects.filter(
        host=settings.HOST_NAME, status__in=FINAL, collected_at=None, ended_at__lt=DatabaseClock() - kept
    )
    count = 0
    for execution in rows.order_by("pk")[:COLLECTED_AT_ONCE]:
        fault("collect.before_remove")
        runner.remove(execution.key)
        fault("collect.after_remove")
        close_door(execution)
        try:
            shutil.rmtree(execution_directory(execution), ignore_errors=False, onerror=_missing_is_fine)
        except OSError as exc:  # it is tried again later, and must not keep the others
            log.warning("directory_not_removed", execution=execution.pk, error=str(exc))
            continue
        Execution.objects.filter(pk=execution.pk).update(collected_at=DatabaseClock())
        count += 1
    return count


def _missing_is_fine(function: object, path: str, info: tuple[type[BaseException], BaseException, object]) -> None:
    if not isinstance(info[1], FileNotFoundError):
        raise info[1]


def remove_all_containers(runner: Runner) -> int:
    """Stop and remove every container of this installation on this host; how many were running."""
    phases = runner.executions()
    for key in phases:
        runner.remove(key)
    return sum(1 for phase in phases.values() if phase is Phase.RUNNING)
