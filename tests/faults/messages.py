"""Messages that a broker might bring: doubled, shuffled, of rows that have ended, of rows that never were."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from celery import Celery
from kombu.exceptions import OperationalError

from tests.faults.stage import Stage

Rows = Callable[..., list[dict[str, int]]]

UNKNOWN = (0, -1, 10**9, 2**62)
MOST_COPIES = 5
MOST_ROWS = 30
STEP_TASKS = ("runs.prepare_step", "runs.execute_step", "runs.settle_step")
QUEUES = {"runs.execute_step": "agents"}
"""Of each task that is not for control."""


def ring_doubled(stage: Stage, rows: Rows, chance: random.Random) -> int:
    """Ring for everything that is open, each message one to five times, in no order; how many."""
    runs = rows("SELECT id FROM runs_run WHERE ended_at IS NULL ORDER BY id LIMIT %s", MOST_ROWS)
    steps = rows("SELECT id FROM runs_steprun WHERE ended_at IS NULL ORDER BY id LIMIT %s", MOST_ROWS)
    messages = [("runs.advance_run", row["id"]) for row in runs]
    messages += [(task, row["id"]) for row in steps for task in STEP_TASKS]
    return _send(stage, [message for message in messages for _ in range(chance.randint(1, MOST_COPIES))], chance)


def ring_stale(stage: Stage, rows: Rows, chance: random.Random) -> int:
    """Ring for what has ended and for what there never was; how many."""
    runs = rows("SELECT id FROM runs_run WHERE ended_at IS NOT NULL ORDER BY random() LIMIT %s", MOST_ROWS)
    steps = rows("SELECT id FROM runs_steprun WHERE ended_at IS NOT NULL ORDER BY random() LIMIT %s", MOST_ROWS)
    messages = [("runs.advance_run", number) for number in (*(row["id"] for row in runs), *UNKNOWN)]
    messages += [(task, number) for number in (*(row["id"] for row in steps), *UNKNOWN) for task in STEP_TASKS]
    messages += [("runs.fail_step", row["id"]) for row in steps]
    return _send(stage, messages, chance)


def _send(stage: Stage, messages: list[tuple[str, int]], chance: random.Random) -> int:
    """Send them in any order; how many arrived before the broker went away."""
    chance.shuffle(messages)
    sent = 0
    with _application(stage) as application:
        for task, number in messages:
            try:
                application.send_task(task, args=[number], queue=QUEUES.get(task, "control"), retry=False)
            except (OperationalError, OSError):
                break
            sent += 1
    return sent


def _application(stage: Stage) -> Any:
    """A sender of its own, as a bug or an old worker would be; it shares nothing with the product but the format."""
    application = Celery("storm", broker=stage.installation.redis_url.replace("unix://", "redis+socket://", 1))
    application.conf.update(
        broker_transport_options={"global_keyprefix": "djinn-", "socket_timeout": 1, "socket_connect_timeout": 1},
        task_ignore_result=True,
        broker_connection_retry=False,
    )
    return application
