"""Asking the broker about its queues, and ringing for canary tasks: the only place of this app that names tasks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import structlog
from celery.exceptions import OperationalError as BrokerError
from kombu.exceptions import OperationalError as KombuError
from redis import RedisError

from djinn.celery import app

log = structlog.get_logger(__name__)

BROKER_AWAY = (RedisError, BrokerError, KombuError, OSError)
ONCE = {"max_retries": 0}
"""Kombu connects a second time, 2 s later, unless it is told not to."""


def messages_in(*queues: str) -> dict[str, int] | None:
    """How many messages wait in each of the queues; None when the broker does not tell, after one timeout at most."""
    try:
        with _broker() as client, client.pipeline(transaction=False) as asked:
            for queue in queues:
                asked.llen(queue)
            return dict(zip(queues, map(int, asked.execute()), strict=True))
    except BROKER_AWAY as exc:
        log.warning("broker_away", queues=queues, error=str(exc))
        return None


def ring_canaries(*queues: str) -> list[str]:
    """Have a worker of each queue run a canary; the queues that were rung in. None where one waits already.

    So a queue that nobody reads fills up with one message, not with one every few seconds. The first failure ends it:
    a broker that is away, or does not answer, costs one timeout.
    """
    waiting, rung = messages_in(*queues), []
    for queue in (queue for queue, count in (waiting or {}).items() if not count):
        try:
            app.signature("core.canary", immutable=True).set(queue=queue).apply_async(retry=False)
        except BROKER_AWAY as exc:
            log.warning("doorbell_silent", task="core.canary", queue=queue, error=str(exc))
            break
        rung.append(queue)
    return rung


def drop_queues(*queues: str) -> None:
    """Remove the queues with their messages; a broker that is away forgets them in its own time."""
    try:
        with _broker() as client:
            client.delete(*queues)
    except BROKER_AWAY as exc:
        log.warning("broker_away", queues=queues, error=str(exc))


@contextmanager
def _broker() -> Iterator[Any]:
    """Kombu's own Redis client, which knows how queues are called there."""
    options = {**app.conf.broker_transport_options, **ONCE}
    with app.connection_for_write(transport_options=options) as connection:
        yield connection.default_channel.client
