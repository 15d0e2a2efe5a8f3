"""Child processes: ready, dying, stubborn, orphaned."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from djinn.core.installation import processes
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
    with pytest.raises(
        ProcessFailed, match=r"^child ended with exit code 3 at its start: the port is taken\nIts log: /.*/child.log$"
    ):
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


def _tended_until_it_fails(supervisor: Supervisor) -> str:
    """What a supervisor says when it gives up."""
    said: list[str] = []

    def has_failed() -> bool:
        try:
            supervisor.tend()
        except ProcessFailed as exc:
            said.append(str(exc))
        return bool(said)

    _until(has_failed, seconds=60)
    return said[0]


def test_a_child_that_dies_again_and_again_ends_the_care_for_it(supervisor: Supervisor, tmp_path: Path) -> None:
    script = "import pathlib; open('starts', 'a').write('x'); raise ImportError('no packaging')"
    supervisor.start(_child(script))
    said = _tended_until_it_fails(supervisor)
    assert said.startswith("child ended with exit code 1 again, 6 times without running steadily in between: Imp")
    assert said.endswith(f"Its log: {tmp_path / 'child.log'}")
    assert "Traceback" not in said
    assert (tmp_path / "starts").read_text() == "x" * 6


def test_a_traceback_is_told_to_who_asks_for_it(supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJINN_DEBUG", "1")
    supervisor.start(_child("raise ImportError('no packaging')", is_ready=lambda: False))
    with pytest.raises(ProcessFailed, match="Traceback"):
        supervisor.wait_ready("child", timeout_seconds=30)


def test_a_child_that_is_killed_after_it_was_ready_is_always_started_again(
    supervisor: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "LONGEST_PAUSE_SECONDS", 0.2)
    ready = tmp_path / "is ready"
    script = "import os, pathlib, time; pathlib.Path(os.environ['DJINN_READY_FILE']).touch(); time.sleep(600)"
    supervisor.start(_child(script, ready_file=ready))
    for _ in range(2 * processes.MOST_RESTARTS):
        _until(ready.exists)
        killed = supervisor.pid("child")
        os.kill(killed, signal.SIGKILL)
        _until(lambda killed=killed: supervisor.tend() or supervisor.pid("child") != killed)  # type: ignore[misc]


def test_a_death_proves_nothing_while_what_all_need_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "LONGEST_PAUSE_SECONDS", 0.2)
    is_away = True
    supervisor = Supervisor(directory=tmp_path, logs=tmp_path, is_excused=lambda: is_away)
    supervisor.start(_child("open('starts', 'a').write('x'); raise SystemExit('no database')"))
    starts = tmp_path / "starts"
    _until(lambda: supervisor.tend() or (starts.exists() and len(starts.read_text()) > 2 * processes.MOST_RESTARTS))
    is_away = False
    assert _tended_until_it_fails(supervisor).splitlines()[0].endswith("in between: no database")
    supervisor.stop()


def test_the_end_of_any_child_ends_the_wait_for_all(supervisor: Supervisor) -> None:
    supervisor.start(_child("import time; time.sleep(600)", "slow", is_ready=lambda: False))
    supervisor.start(_child("raise SystemExit('no packages')", "dead", is_ready=lambda: False))
    with pytest.raises(ProcessFailed, match=r"^dead ended with exit code 1 at its start: no packages"):
        supervisor.wait_ready("slow", "dead", timeout_seconds=60)


def test_the_words_of_an_earlier_start_are_not_told(supervisor: Supervisor, tmp_path: Path) -> None:
    (tmp_path / "child.log").write_text("the words of yesterday\n")
    supervisor.start(_child("raise SystemExit(4)", is_ready=lambda: False))
    with pytest.raises(ProcessFailed, match=r"^child ended with exit code 4 at its start\.\nIts log"):
        supervisor.wait_ready("child", timeout_seconds=30)


def test_what_a_child_writes_is_read_by_its_own_user_only(supervisor: Supervisor, tmp_path: Path) -> None:
    script = "open('made', 'w').close(); open('ready', 'w').close(); import time; time.sleep(600)"
    supervisor.start(_child(script, is_ready=(tmp_path / "ready").exists))
    supervisor.wait_ready("child", timeout_seconds=30)
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("made", "child.log")] == [0o600, 0o600]


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
