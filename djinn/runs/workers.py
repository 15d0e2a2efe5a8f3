"""What a worker process does beside its tasks, from its start to its end, by the queues that it serves."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import structlog
from celery import signals
from django.conf import settings

from djinn.core.database import released
from djinn.executions.disk import describe
from djinn.executions.host import tend_host
from djinn.executions.places import present_runner
from djinn.executions.supervise import stopping
from djinn.runs.dispatch import AGENTS, CONTROL
from djinn.runs.retention import remove_old_workspaces
from djinn.runs.sweep import sweep

log = structlog.get_logger(__name__)

TEND_SECONDS = 1.0
RETENTION_SECONDS = 600.0


@signals.worker_ready.connect
def start_threads(sender: Any, **_: Any) -> None:
    """The sweep in a control worker, care for the host in an agents worker."""
    queues = set(sender.app.amqp.queues.consume_from)
    if CONTROL in queues:
        _every(settings.SWEEP_SECONDS, sweep, "sweep")
    if AGENTS in queues:
        log.info("disk_limits", **describe(present_runner()))
        _every(TEND_SECONDS, tend_host, "host")
        _every(RETENTION_SECONDS, remove_old_workspaces, "workspaces")


@signals.worker_shutting_down.connect
def let_go(**_: Any) -> None:
    """Detach from all containers at once; they run on, and another worker adopts them."""
    stopping.set()


def _every(seconds: float, action: Callable[[], object], name: str) -> None:
    threading.Thread(target=_repeat, args=(seconds, action, name), name=name, daemon=True).start()


def _repeat(seconds: float, action: Callable[[], object], name: str) -> None:
    while not stopping.is_set():
        try:
            with released():
                action()
        except Exception as exc:  # the thread's edge: it must outlive a restart of PostgreSQL
            log.warning("care_failed", what=name, error=str(exc), kind=type(exc).__name__)
        stopping.wait(seconds)
