"""Ringing for canary tasks: the only place of this app that names tasks."""

from __future__ import annotations

import structlog
from celery.exceptions import OperationalError as BrokerError
from kombu.exceptions import OperationalError as KombuError
from redis import RedisError

from djinn.celery import app

log = structlog.get_logger(__name__)

BROKER_AWAY = (RedisError, BrokerError, KombuError, OSError)


def ring_canary(queue: str) -> bool:
    """Have a worker of the queue run a canary; False when one waits there already, or the broker is away.

    So a queue that nobody reads fills up with one message, not with one every few seconds.
    """
    try:
        with app.connection_for_write() as connection, connection.channel() as channel:
            if channel.client.llen(queue):
                return False
        app.signature("core.canary", immutable=True).set(queue=queue).apply_async(retry=False)
    except BROKER_AWAY as exc:
        log.warning("doorbell_silent", task="core.canary", queue=queue, error=str(exc))
        return False
    return True


def drop_queue(queue: str) -> None:
    """Remove the queue with its messages; a broker that is away forgets it in its own time."""
    try:
        with app.connection_for_write() as connection, connection.channel() as channel:
            channel.client.delete(queue)
    except BROKER_AWAY as exc:
        log.warning("broker_away", queue=queue, error=str(exc))
