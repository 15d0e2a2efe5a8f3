"""Giving disk space back: the workspaces of runs that ended long ago."""

from __future__ import annotations

from datetime import timedelta

import structlog
from django.conf import settings
from django.db.models import DurationField, Exists, OuterRef, Value

from djinn.executions.lease import DatabaseClock
from djinn.executions.places import present_runner
from djinn.runner.workspace import Workspace
from djinn.runs.models import Run, StepRun
from djinn.runs.states import RUN_FINAL, RUN_OPEN

log = structlog.get_logger(__name__)

AT_ONCE = 50


def remove_old_workspaces() -> int:
    """Remove this host's workspaces of runs that ended long enough ago and that no open run goes on from; how many.

    Each by itself: one that cannot be removed keeps no other.
    """
    places = {path.name: path for path in settings.INSTALLATION.workspaces.glob("run-*")}
    numbers = [int(name.removeprefix("run-")) for name in places if name.removeprefix("run-").isdigit()]
    kept = Value(timedelta(seconds=settings.KEEP_WORKSPACE_SECONDS), output_field=DurationField())
    old = Run.objects.filter(pk__in=numbers, status__in=RUN_FINAL, ended_at__lt=DatabaseClock() - kept)
    is_needed = Exists(StepRun.objects.filter(reused_from__run=OuterRef("pk"), run__status__in=RUN_OPEN))
    count = 0
    # In any order: those that cannot be removed must not be the first for ever.
    for run in old.exclude(is_needed).order_by("?")[:AT_ONCE]:
        try:
            Workspace(places[run.stream], owner=present_runner().owner()).remove()
        except Exception as exc:  # the edge of one run's files, which were made by somebody else
            log.warning("workspace_not_removed", run=run.pk, error=str(exc), kind=type(exc).__name__)
            continue
        log.info("workspace_removed", run=run.pk)
        count += 1
    return count
