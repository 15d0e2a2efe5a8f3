"""Doors from the broker to the services: each takes a primary key, may come twice, late or never, and asks the row."""

from __future__ import annotations

from collections.abc import Callable

import structlog
from celery import Task
from django.db import InterfaceError, OperationalError

from djinn.celery import app
from djinn.runs import engine, schedules
from djinn.runs.dispatch import START_SCHEDULED

log = structlog.get_logger(__name__)


def _door(name: str, service: Callable[[int], None]) -> Task:
    """The task of that name. A database that is away or chose us in a deadlock says nothing about the row: the sweep
    rings again, and it is not counted as a crash."""

    @app.task(name=name)
    def task(pk: int) -> None:
        try:
            service(pk)
        except (OperationalError, InterfaceError) as exc:
            log.warning("database_away", task=name, pk=pk, error=str(exc))

    return task


advance_run = _door("runs.advance_run", engine.advance_run)
prepare_step = _door("runs.prepare_step", engine.prepare_step)
execute_step = _door("runs.execute_step", engine.execute_step)
settle_step = _door("runs.settle_step", engine.settle_step)
fail_step = _door("runs.fail_step", engine.note_crash)
start_scheduled = _door(START_SCHEDULED, schedules.start_scheduled)
