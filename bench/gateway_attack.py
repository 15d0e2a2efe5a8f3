"""One container's calls while others do to the gateway whatever they like; as a program, it plays one of the others."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.figures import Figure, percentile
from bench.installation import BenchFailed, Up
from bench.runs import cancel_all, held_runs

ATTACKERS = 3
CALLS, WARM_UP = 300, 10
PAUSE_SECONDS = 0.05
SETTLE_SECONDS = 3.0
THREADS = 8
LARGE_BYTES = 14 * 1024 * 1024
MOST_IDLE = 20_600
PATH = "/v1/chat/completions"
MODEL = "scripted/attacked"


def measure(home: Path, up: Up) -> list[Figure]:
    """The latency of a whole call through the gateway: token, budget, model (which plays one word), its row."""
    from djinn.executions.models import Execution
    from djinn.executions.places import door_of
    from djinn.executions.tokens import token_of

    runs = held_runs(ATTACKERS + 1)
    executions = list(Execution.objects.filter(step_run__run__in=[run.pk for run in runs]))
    Execution.objects.filter(pk__in=[each.pk for each in executions]).update(model=MODEL)
    ways = [(str(door_of(each) / "gateway.sock"), token_of(each.pk)) for each in executions]
    try:
        for way in ways:
            _latencies(*way, calls=WARM_UP)
        quiet = _latencies(*ways[0])
        figures = [Figure("call through the gateway, p99", percentile(quiet, 0.99), "ms")]
        for kind in ATTACKS:
            with _attacked(kind, ways[1:]):
                attacked = _latencies(*ways[0])
            for share in (0.5, 0.99):
                figures.append(
                    Figure(f"  {kind} by {ATTACKERS} others, p{share * 100:.0f}", percentile(attacked, share), "ms",
                           at_most=100 if share > 0.9 else None, baseline=percentile(quiet, share),
                           baseline_name="without")
                )  # fmt: skip
    finally:
        cancel_all(runs)
    return figures


def _latencies(path: str, token: str, calls: int = CALLS) -> list[float]:
    """Milliseconds of calls one after the other, each over a connection of its own, as the runtime makes them."""
    taken = []
    for _ in range(calls):
        began = time.monotonic()
        status = call(path, token, _body("Hi"))
        if status != 200:
            raise BenchFailed(f"a call was answered {status}")
        taken.append((time.monotonic() - began) * 1000)
        time.sleep(PAUSE_SECONDS)
    return taken


@contextmanager
def _attacked(kind: str, ways: list[tuple[str, str]]) -> Iterator[None]:
    attackers = [
        subprocess.Popen([sys.executable, "-m", "bench.gateway_attack", kind, path], env={**os.environ, "TOKEN": token})
        for path, token in ways
    ]
    time.sleep(SETTLE_SECONDS)
    try:
        yield
        if any(attacker.poll() is not None for attacker in attackers):
            raise BenchFailed(f"an attacker gave up: {kind}")
    finally:
        for attacker in attackers:
            attacker.kill()
            attacker.wait()


# --- One call ---------------------------------------------------------------------------------------------------------
def call(path: str, token: str, body: bytes) -> int:
    """The status of the answer."""
    connection = http.client.HTTPConnection("gateway", timeout=30)
    connection.sock = _connected(path)
    try:
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json", "Connection": "close"}
        connection.request("POST", PATH, body, headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


def _body(text: str) -> bytes:
    return json.dumps({"model": MODEL, "messages": [{"role": "user", "content": text}], "stream": True}).encode()


def _connected(path: str) -> socket.socket:
    opened = socket.socket(socket.AF_UNIX)
    opened.settimeout(30)
    opened.connect(path)
    return opened


# --- What attackers do, each thread of theirs for ever ----------------------------------------------------------------
def idle(path: str, token: str) -> None:
    """Hold as many connections as there can be, and try for more."""
    held: list[socket.socket] = []
    while True:
        opened = socket.socket(socket.AF_UNIX)
        opened.setblocking(False)
        try:
            opened.connect(path)
            held.append(opened)
        except OSError:
            opened.close()
            time.sleep(0.001)
        if len(held) > MOST_IDLE // THREADS:
            held.pop(0).close()


def bodies(path: str, token: str) -> None:
    """Send bodies of 14 MB."""
    values = _body("x" * LARGE_BYTES), b'{"model": "a", "messages": [' + b"[]," * (LARGE_BYTES // 3) + b"[]]}"
    while True:
        for body in values:
            call(path, token, body)


def heads(path: str, token: str) -> None:
    """Send a header of 165 MB, and begin many requests that go no further."""
    held: list[socket.socket] = []
    while True:
        opened = _connected(path)
        opened.sendall(b"GET / HTTP/1.1\r\nx: ")
        held = [opened, *held[:50]]
        with _connected(path) as other:
            other.sendall(b"GET / HTTP/1.1\r\nx: ")
            for _ in range(165):
                other.sendall(b"x" * 1024**2)


def requests(path: str, token: str) -> None:
    """Ask as often as possible, and connect for nothing."""
    while True:
        call(path, token, b"{}")
        _connected(path).close()


ATTACKS: dict[str, Callable[[str, str], None]] = {
    "idle connections": idle,
    "bodies of 14 MB": bodies,
    "endless heads": heads,
    "requests without end": requests,
}


def _for_ever(attack: Callable[[str, str], None], path: str, token: str) -> None:
    while True:
        with contextlib.suppress(OSError, http.client.HTTPException):  # it is refused, and goes on
            attack(path, token)


if __name__ == "__main__":
    os.nice(5)  # containers have a share of the processors; what is measured is the gateway
    for _ in range(THREADS):
        threading.Thread(target=_for_ever, args=(ATTACKS[sys.argv[1]], sys.argv[2], os.environ["TOKEN"])).start()
