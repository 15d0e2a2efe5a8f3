"""Ringing the doorbell: the only place that names tasks.

Always on commit, and never believed in: a message that is lost is rung again by the sweep, a doubled one finds its row
taken. A broker that does not answer costs a caller a few seconds, not an error.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import takewhile

import structlog
from celery import Signature, chain
from django.db import transaction

from djinn.celery import app
from djinn.core.dispatch import BROKER_AWAY

log = structlog.get_logger(__name__)

Held = dict[str, Signature]
"""Messages by their own JSON, so that each is there once."""
_held: ContextVar[Held | None] = ContextVar("held", default=None)
CONTROL, AGENTS = "control", "agents"
START_SCHEDULED = "runs.start_scheduled"
"""What beat rings at the times of a schedule."""
CROWD = 1000
"""Messages. Steps that wait for a free place in their host's workers would otherwise be rung for again and again until
Redis is full, and then nothing can be rung for any more."""
QUIET = 50
"""Messages. What is late while more of them wait has its own among them, most likely. Ringing for it again would make
the queue longer each time, until the workers do nothing but read messages that came twice."""


def ring_advance(run_id: int) -> None:
    """Have somebody decide what the run does next."""
    _on_commit(_task("runs.advance_run", run_id, CONTROL))


def ring_step(step_run_id: int, *, host: str = "") -> None:
    """Have somebody prepare, execute and settle the step run; `host` is where its workspace is, empty for any."""
    steps = chain(
        _task("runs.prepare_step", step_run_id, CONTROL),
        _task("runs.execute_step", step_run_id, agents_queue(host)),
        _task("runs.settle_step", step_run_id, CONTROL),
    )
    _on_commit(steps.on_error(_task("runs.fail_step", step_run_id, CONTROL)))


def ring_execute(step_run_id: int, *, host: str = "") -> None:
    """Have somebody go on with an execution that nobody holds."""
    links = chain(
        _task("runs.execute_step", step_run_id, agents_queue(host)), _task("runs.settle_step", step_run_id, CONTROL)
    )
    _on_commit(links.on_error(_task("runs.fail_step", step_run_id, CONTROL)))


def ring_settle(step_run_id: int) -> None:
    """Have somebody settle a step run whose execution has ended."""
    settle = _task("runs.settle_step", step_run_id, CONTROL)
    _on_commit(settle.on_error(_task("runs.fail_step", step_run_id, CONTROL)))


def agents_queue(host: str) -> str:
    """The queue of one host's agents workers, or of all."""
    return f"{AGENTS}@{host}" if host else AGENTS


@contextmanager
def held_back() -> Iterator[Held]:
    """Inside the block nothing is sent by this thread: what would be, once its transaction commits, is kept."""
    messages: Held = {}
    token = _held.set(messages)
    try:
        yield messages
    finally:
        _held.reset(token)


def send_all(messages: Iterable[Signature]) -> int:
    """Send them until one fails, so that a broker that does not answer costs one timeout; how many went out."""
    return sum(1 for _ in takewhile(_send, messages))


def _task(name: str, pk: int, queue: str) -> Signature:
    return app.signature(name, args=(pk,), immutable=True).set(queue=queue)


def _on_commit(message: Signature) -> None:
    transaction.on_commit(lambda: _send_or_hold(message), robust=True)


def _send_or_hold(message: Signature) -> None:
    held = _held.get()
    if held is None:
        _send(message)
    else:
        held[json.dumps(message)] = message


def _send(message: Signature) -> bool:
    """Send it; False when the broker did not take it."""
    try:
        message.apply_async(retry=False)
    except BROKER_AWAY as exc:
        log.warning("doorbell_silent", task=message.name, error=str(exc))
        return False
    return True
