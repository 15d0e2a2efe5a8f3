"""Doors from the broker."""

from __future__ import annotations

import structlog

from djinn.celery import app

log = structlog.get_logger(__name__)


@app.task(name="core.canary")
def canary() -> None:
    """Shows that beat, broker and a control worker work together."""
    log.debug("canary")
