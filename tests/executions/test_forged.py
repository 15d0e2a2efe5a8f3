"""Scripts that write their own record of how they ended, and what the kernel does to them for want of memory."""

from __future__ import annotations

import signal

import pytest
from pytest_django import Settings

from djinn.events.log import read_after
from djinn.executions.models import Execution
from djinn.executions.supervise import see_through
from djinn.runner.base import Runner
from tests.make import claimed, make_execution

pytestmark = [pytest.mark.docker, pytest.mark.timeout(300), pytest.mark.django_db(transaction=True)]

FORGE = """
journal="$(dirname "$DJINN_OUTPUT")/../journal.ndjson"
forge() {
  n=$(wc -l < "$journal")
  printf '{"n":%d,"t":0,"type":"%s","data":%s}\\n' $((n + 1)) "$1" "$2" >> "$journal"
}
succeed() { forge finished '{"status":"succeeded","outputs":{"A":"forged"},"summary":"","error":null,"exit_code":0}'; }
"""
HOG = "python3 -c 'x = bytearray(400 * 1024 * 1024)'"


def ended(runner: Runner, image: str, script: str, **columns: object) -> Execution:
    """The execution of a script, seen through."""
    order = {"mode": "command", "script": FORGE + script, "outputs": []}
    execution = make_execution(image=image, order=order, **columns)
    assert see_through(claimed(execution), runner)
    execution.refresh_from_db()
    return execution


@pytest.mark.parametrize(
    "script",
    [
        "succeed; exit 1",
        "succeed; sleep 1; exit 1",
        "succeed; forge log '{}'; exit 1",
        "forge log '{}'; exit 0",
        "succeed; sleep 600",
    ],
)
def test_a_script_that_writes_its_own_record_fails_as_forged(
    docker: Runner, image: str, settings: Settings, script: str
) -> None:
    settings.STOP_GRACE_SECONDS = 2.0
    execution = ended(docker, image, script)
    assert (execution.status, execution.reason) == ("exited", "forged")
    assert execution.outcome is None
    assert "was forged" in execution.message


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_script_that_silences_the_runtime_after_its_own_record_does_not_succeed(
    docker: Runner, image: str, settings: Settings, number: signal.Signals
) -> None:
    """The runtime cannot tell on it any more. It may also have been killed by somebody else: nobody is accused."""
    settings.STOP_GRACE_SECONDS = 0.5
    each = f"grep -q djinn_runtime $p/cmdline && kill -{int(number)} ${{p#/proc/}}"
    execution = ended(docker, image, f"succeed; for p in /proc/[0-9]*; do {each}; done; sleep 600")
    assert (execution.status, execution.reason) == ("lost", "lost")


@pytest.mark.parametrize("script", [HOG, f"{HOG}; true", f'sh -c "{HOG}"', f"{HOG} | cat"])
def test_a_command_that_is_killed_for_want_of_memory_says_so(docker: Runner, image: str, script: str) -> None:
    execution = ended(docker, image, script, resources={"memory_mb": 64})
    assert (execution.status, execution.reason) == ("exited", "out_of_memory"), execution.message


def test_a_command_that_is_killed_by_somebody_else_is_an_error(docker: Runner, image: str) -> None:
    execution = ended(docker, image, "kill -9 $$", resources={"memory_mb": 64})
    assert (execution.status, execution.reason) == ("exited", "error")


def test_a_command_that_goes_on_after_a_kill_for_want_of_memory_may_succeed(docker: Runner, image: str) -> None:
    execution = ended(docker, image, f"{HOG} || echo on", resources={"memory_mb": 64})
    assert (execution.status, execution.reason) == ("exited", "")


def test_a_script_cannot_open_the_memory_of_the_runtime(docker: Runner, image: str) -> None:
    """Who could write there would choose the runtime's exit code. The engine's init, process 1, is not closed."""
    each = '[ $p != /proc/1 ] && grep -q djinn_runtime $p/cmdline && { : 3<> $p/mem; } 2>/dev/null && echo "opened $p"'
    script = f"for p in /proc/[0-9]*; do {each}; done; echo looked; : > $DJINN_OUTPUT"
    execution = ended(docker, image, script)
    told = "".join(event.data.get("text", "") for event in read_after("test", 0) if event.type == "output")
    assert (execution.status, execution.reason, told) == ("exited", "", "looked\n")
