"""Giving disk space back: the workspaces of runs that ended long ago."""

from __future__ import annotations

from datetime import timedelta

import structlog
from django.conf import settings
from django.db.models import DurationField, Value

from djinn.executions.lease import DatabaseClock
from djinn.executions.places import present_runner
from djinn.runner.workspace import Workspace
from djinn.runs.models import Run
from djinn.runs.states import RUN_FINAL

log = structlog.get_logger(__name__)

AT_ONCE = 50


def remove_old_workspaces() -> int:
    """Remove this host's workspaces of runs that ended long enough ago; how many."""
    places = {path.name: path for path in settings.INSTALLATION.workspaces.glob("run-*")}
    numbers = [int(name.removeprefix("run-")) for name in places if name.removeprefix("run-").isdigit()]
    kept = Value(timedelta(seconds=settings.KEEP_WORKSPACE_SECONDS), output_field=DurationField())
    old = Run.objects.filter(pk__in=numbers, status__in=RUN_FINAL, ended_at__lt=DatabaseClock() - kept)
    ended = list(old.order_by("pk")[:AT_ONCE])
    for run in ended:
        Workspace(places[run.stream], owner=present_runner().owner()).remove()
        log.info("workspace_removed", run=run.pk)
    return len(ended)
