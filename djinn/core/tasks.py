"""Doors from the broker."""

from __future__ import annotations

import structlog
from django.db import InterfaceError, OperationalError

from djinn.celery import app
from djinn.core import liveness

log = structlog.get_logger(__name__)


@app.task(name="core.canary")
def canary() -> None:
    """Shows that this worker works."""
    try:
        liveness.note_canary()
    except (OperationalError, InterfaceError) as exc:
        log.warning("database_away", task="core.canary", error=str(exc))


@app.task(name="core.call_canaries")
def call_canaries() -> None:
    """Shows that beat, broker and a control worker work together, and asks the others."""
    try:
        liveness.call_canaries()
    except (OperationalError, InterfaceError) as exc:
        log.warning("database_away", task="core.call_canaries", error=str(exc))
