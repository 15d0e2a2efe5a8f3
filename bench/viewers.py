"""From an event's commit to the browser, with many viewers of one run's page; as a program, it plays the viewers."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import websockets

from bench.figures import Figure, percentile
from bench.installation import BenchFailed, Up

VIEWERS = 200
EVENTS = 60
PAUSE_SECONDS = 0.25
"""An agent's text comes in pieces of up to 2 KB, a few a second."""
CONNECT_SECONDS = 90.0
MARK = re.compile(r"mark-(\d+)-end")


def measure(home: Path, up: Up) -> list[Figure]:
    """The latencies of every event at every viewer; the viewers are a process of their own on the same processors."""
    run_id, after = _open_run()
    viewers = subprocess.Popen(
        [sys.executable, "-m", "bench.viewers", f"ws{up.url.removeprefix('http')}/ws/runs/{run_id}/?after={after}",
         up.url, _session_cookie()],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert viewers.stdout is not None
    try:
        if viewers.stdout.readline().strip() != "ready":
            raise BenchFailed("the viewers could not connect")
        commits = _append_marks(run_id)
        receipts, _ = viewers.communicate(timeout=60)
    finally:
        viewers.kill()
    latencies = [(at - commits[mark]) * 1000 for mark, at in json.loads(receipts)]
    if len(latencies) != VIEWERS * EVENTS:
        raise BenchFailed(f"{VIEWERS * EVENTS} receipts were due, {len(latencies)} came")
    return [
        Figure(f"commit to browser, {VIEWERS} viewers, p50", percentile(latencies, 0.5), "ms", at_most=150),
        Figure(f"commit to browser, {VIEWERS} viewers, p99", percentile(latencies, 0.99), "ms", at_most=500),
    ]


def _open_run() -> tuple[int, int]:
    """A run that rests as far as the engine is concerned, and its newest event's number."""
    from bench.runs import finished_run
    from djinn.events.log import last_seq

    run = finished_run("single")
    return run.pk, last_seq(run.stream)


def _session_cookie() -> str:
    """The cookie of a person who is logged in and may see every run."""
    from django.conf import settings
    from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
    from django.contrib.sessions.backends.db import SessionStore

    from djinn.accounts.models import Role, User

    user, _ = User.objects.get_or_create(username="bench", defaults={"role": Role.VIEWER})
    session = SessionStore()
    session[SESSION_KEY] = str(user.pk)
    session[BACKEND_SESSION_KEY] = "django.contrib.auth.backends.ModelBackend"
    session[HASH_SESSION_KEY] = user.get_session_auth_hash()
    session.save()
    return f"{settings.SESSION_COOKIE_NAME}={session.session_key}"


def _append_marks(run_id: int) -> dict[int, float]:
    """Append the events one by one; when each was committed, by the machine's monotonic clock."""
    from django.db import transaction

    from djinn.events.log import NewEvent, append
    from djinn.runs.models import StepRun

    step_run = StepRun.objects.filter(run=run_id).order_by("-number").values_list("pk", flat=True)[0]
    commits = {}
    for mark in range(EVENTS):
        with transaction.atomic():
            append(f"run-{run_id}", [NewEvent("text", {"text": f"mark-{mark}-end ", "step_run": step_run})])
        commits[mark] = time.monotonic()
        time.sleep(PAUSE_SECONDS)
    return commits


async def _play(url: str, origin: str, cookie: str) -> list[tuple[int, float]]:
    """Connect all viewers, say so, and gather what each receives until it has everything."""
    gate = asyncio.Semaphore(10)
    connected = [asyncio.Event() for _ in range(VIEWERS)]
    tasks = [asyncio.create_task(_view(url, origin, cookie, gate, is_in)) for is_in in connected]
    async with asyncio.timeout(CONNECT_SECONDS):
        for is_in in connected:
            await is_in.wait()
    await asyncio.sleep(1.0)  # the last ones' first reading of the log
    print("ready", flush=True)
    return [receipt for viewer in await asyncio.gather(*tasks) for receipt in viewer]


async def _view(
    url: str, origin: str, cookie: str, gate: asyncio.Semaphore, is_in: asyncio.Event
) -> list[tuple[int, float]]:
    receipts: dict[int, float] = {}
    async with gate:
        socket = await websockets.connect(url, origin=websockets.Origin(origin), additional_headers={"Cookie": cookie})
    is_in.set()
    async with socket:
        while len(receipts) < EVENTS:
            text = await asyncio.wait_for(socket.recv(), 60)
            now = time.monotonic()
            for mark in MARK.findall(str(text)):
                receipts.setdefault(int(mark), now)
    return list(receipts.items())


if __name__ == "__main__":
    json.dump(asyncio.run(_play(*sys.argv[1:4])), sys.stdout)
