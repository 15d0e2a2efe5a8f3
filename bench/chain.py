"""The baseline of the hops: a bare Celery chain that does nothing, on the same Redis with the same settings.

Its workers are started with `-A bench.chain` and know nothing of Django: three tasks a step, as a step has, two queues
and two workers as the stack has. The last task pushes to a list that whoever measures waits for.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import redis
from celery import Celery, chain

SETTINGS = "BENCH_CELERY"
"""Environment variable: Djinn's Celery settings as JSON."""
DONE = "bench-done"

app = Celery("bench")
app.conf.update(json.loads(os.environ.get(SETTINGS, "{}")))


@app.task(name="bench.prepare", ignore_result=True)
def prepare(number: int) -> None:
    """Do nothing."""


@app.task(name="bench.execute", ignore_result=True)
def execute(number: int) -> None:
    """Do nothing."""


@app.task(name="bench.settle", ignore_result=True)
def settle(number: int) -> None:
    """Do nothing."""


@app.task(name="bench.tell", ignore_result=True)
def tell(number: int) -> None:
    """Tell that the chain of that number is at its end, and when."""
    _redis().rpush(DONE, json.dumps([number, time.time()]))


@contextmanager
def bare_workers(configuration: dict[str, object]) -> Iterator[None]:
    """Two workers of the kind that the stack has, ready when the block begins."""
    app.conf.update(configuration)
    environment = {**os.environ, SETTINGS: json.dumps(configuration), "DJANGO_SETTINGS_MODULE": ""}
    options = ("--pool", "threads", "--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "INFO")
    command = (sys.executable, "-m", "celery", "-A", "bench.chain", "worker", *options)
    workers = [
        subprocess.Popen(
            [*command, "-Q", queue, "-c", threads, "-n", f"{queue}@%h"],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for queue, threads in (("bare-control", "4"), ("bare-agents", "50"))
    ]
    try:
        run_chain(1, timeout_seconds=30)
        yield
    finally:
        for worker in workers:
            worker.send_signal(signal.SIGTERM)
        for worker in workers:
            worker.wait(20)


def run_chain(steps: int, *, timeout_seconds: float = 60) -> float:
    """Seconds that a chain of so many steps takes, three tasks a step, from its sending to its last task."""
    started = time.time()
    send_chain(steps, number=0)
    return ended_chains(1, timeout_seconds=timeout_seconds)[0] - started


def send_chain(steps: int, *, number: int) -> None:
    """Send a chain of so many steps, three tasks a step; `ended_chains` knows it by its number."""
    links = [
        signature
        for step in range(steps)
        for signature in (
            prepare.si(step).set(queue="bare-control"),
            execute.si(step).set(queue="bare-agents"),
            settle.si(step).set(queue="bare-control"),
        )
    ]
    chain(*links, tell.si(number).set(queue="bare-control")).apply_async()


def ended_chains(count: int, *, timeout_seconds: float = 60) -> dict[int, float]:
    """When each of the chains that were sent has ended, in seconds since the epoch, once all have."""
    client = _redis()
    ended: dict[int, float] = {}
    deadline = time.monotonic() + timeout_seconds
    while len(ended) < count:
        told = client.blpop([DONE], timeout=max(1, int(deadline - time.monotonic())))
        if told is None:
            raise TimeoutError(f"{count} bare chains did not end in {timeout_seconds:.0f} s")
        number, at = json.loads(told[1])
        ended[number] = at
    return ended


def _redis() -> redis.Redis:
    url = str(app.conf.broker_url).replace("redis+socket://", "unix://")
    return redis.Redis.from_url(url, socket_timeout=70)
