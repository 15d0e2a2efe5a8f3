"""Child processes: ready, dying, stubborn, orphaned."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from djinn.core.installation.processes import Process, ProcessFailed, Supervisor

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    made = Supervisor(directory=tmp_path, logs=tmp_path)
    yield made
    made.stop()


def _child(script: str, name: str = "child", **options: object) -> Process:
    return Process(name, (sys.executable, "-c", textwrap.dedent(script)), **options)  # type: ignore[arg-type]


def _until(is_so: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.02)


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except FileNotFoundError:
        return False


def test_a_child_that_is_ready_can_be_used(supervisor: Supervisor, tmp_path: Path) -> None:
    script = "import pathlib, time; pathlib.Path('ready').touch(); time.sleep(600)"
    supervisor.start(_child(script, is_ready=(tmp_path / "ready").exists))
    supervisor.wait_ready("child", timeout_seconds=30)
    assert _lives(supervisor.pid("child"))


def test_a_child_that_ends_at_its_start_is_told_with_the_end_of_its_log(supervisor: Supervisor) -> None:
    supervisor.start(_child("print('the port is taken'); raise SystemExit(3)", is_ready=lambda: False))
    with pytest.raises(ProcessFailed, match=r"child ended with 3 at its start(.|\n)*the port is taken"):
        supervisor.wait_ready("child", timeout_seconds=30)


def test_a_child_that_never_gets_ready_is_told(supervisor: Supervisor) -> None:
    supervisor.start(_child("import time; time.sleep(600)", is_ready=lambda: False))
    with pytest.raises(ProcessFailed, match=r"child was not ready after 0 s"):
        supervisor.wait_ready("child", timeout_seconds=0.2)


def test_a_child_that_died_is_started_again(supervisor: Supervisor) -> None:
    supervisor.start(_child("import time; time.sleep(600)"))
    first = supervisor.pid("child")
    os.kill(first, signal.SIGKILL)

    def is_back() -> bool:
        supervisor.tend()
        return supervisor.pid("child") != first

    _until(is_back)
    assert _lives(supervisor.pid("child"))


def test_a_child_that_keeps_dying_is_started_less_and_less_often(supervisor: Supervisor, tmp_path: Path) -> None:
    started = tmp_path / "started"
    supervisor.start(Process("child", ("/bin/sh", "-c", f"date +%s.%N >> {started}")))

    def is_fourth() -> bool:
        supervisor.tend()
        return started.exists() and len(started.read_text().splitlines()) >= 4

    _until(is_fourth)
    times = [float(line) for line in started.read_text().splitlines()[:4]]
    pauses = [later - earlier for earlier, later in pairwise(times)]
    assert pauses[2] > pauses[0]
    assert pauses[2] >= 0.8


def test_a_child_is_stopped_by_its_own_signal(supervisor: Supervisor, tmp_path: Path) -> None:
    script = """
        import pathlib, signal, sys, time
        signal.signal(signal.SIGINT, lambda *_: (pathlib.Path("said goodbye").touch(), sys.exit()))
        pathlib.Path("ready").touch()
        time.sleep(600)
    """
    supervisor.start(_child(script, stop_signal=signal.SIGINT, is_ready=(tmp_path / "ready").exists))
    supervisor.wait_ready("child", timeout_seconds=30)
    supervisor.stop()
    assert (tmp_path / "said goodbye").exists()


def test_a_stubborn_child_is_killed_with_its_own_children(supervisor: Supervisor, tmp_path: Path) -> None:
    script = """
        import os, pathlib, signal, subprocess, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        grandchild = subprocess.Popen(["sleep", "600"])
        pathlib.Path("part").write_text(str(grandchild.pid))
        os.rename("part", "ready")
        time.sleep(600)
    """
    supervisor.start(_child(script, stop_seconds=0.3, is_ready=(tmp_path / "ready").exists))
    supervisor.wait_ready("child", timeout_seconds=30)
    pids = [supervisor.pid("child"), int((tmp_path / "ready").read_text())]
    supervisor.stop()
    _until(lambda: not any(map(_lives, pids)))


def test_only_the_named_children_stay(supervisor: Supervisor) -> None:
    for name in ("server", "worker"):
        supervisor.start(_child("import time; time.sleep(600)", name))
    server, worker = supervisor.pid("server"), supervisor.pid("worker")
    supervisor.stop(but=("server",))
    assert (_lives(server), _lives(worker)) == (True, False)


def test_a_child_that_died_already_can_be_stopped(supervisor: Supervisor) -> None:
    supervisor.start(_child("raise SystemExit"))
    pid = supervisor.pid("child")
    _until(lambda: not _lives(pid))
    supervisor.stop()
    with pytest.raises(KeyError):
        supervisor.pid("child")


def test_children_die_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    parent = f"""
        import pathlib, sys, time
        sys.path.insert(0, {str(PROJECT)!r})
        from djinn.core.installation.processes import Process, Supervisor
        place = pathlib.Path({str(tmp_path)!r})
        supervisor = Supervisor(directory=place, logs=place)
        supervisor.start(Process("child", ("sleep", "600")))
        print(supervisor.pid("child"), flush=True)
        time.sleep(600)
    """
    command = [sys.executable, "-c", textwrap.dedent(parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        _until(lambda: Path(f"/proc/{child}/cmdline").read_bytes().startswith(b"sleep"))
        process.kill()
    _until(lambda: not _lives(child))


def test_a_child_is_in_a_session_of_its_own_and_reads_nothing(supervisor: Supervisor) -> None:
    supervisor.start(_child("import time; time.sleep(600)"))
    pid = supervisor.pid("child")
    assert os.getsid(pid) == pid
    assert os.readlink(f"/proc/{pid}/fd/0") == "/dev/null"


def test_a_child_gets_its_own_environment_beside_ours(supervisor: Supervisor, tmp_path: Path) -> None:
    supervisor.start(
        Process("child", ("/bin/sh", "-c", "echo $COLOUR$HOME > out; sync; mv out ready"), {"COLOUR": "red"})
    )
    _until((tmp_path / "ready").exists)
    assert (tmp_path / "ready").read_text().strip() == f"red{os.environ['HOME']}"
