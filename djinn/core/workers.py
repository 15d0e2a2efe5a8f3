"""What a worker process tells about itself."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from celery import signals

from djinn.core.installation.processes import READY_FILE
from djinn.core.liveness import become_worker, introduce_worker, queue_of


@signals.celeryd_after_setup.connect
def read_own_queue(sender: str, instance: Any, **_: Any) -> None:
    """Have the worker read a queue of its own beside those that it was started with."""
    queues = instance.app.amqp.queues
    become_worker(sender, list(queues.consume_from))
    queues.select_add(queue_of(sender))


@signals.worker_ready.connect
@signals.beat_init.connect
def say_ready(**_: Any) -> None:
    """Let `manage.py up` know that this process takes messages, or rings by the clock."""
    if path := os.environ.pop(READY_FILE, ""):
        Path(path).touch()


@signals.worker_ready.connect
def introduce(**_: Any) -> None:
    """Let it be known from its start."""
    introduce_worker()
