"""Guard, deadline, signals, the journal's limits, the end of all processes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from execution_double import RUNTIME, Execution, brief_values

from runtime_image.djinn_runtime.protocol import (
    BRIEF_NAME,
    GUARD_NAME,
    JOURNAL_NAME,
    MAX_RECORD_BYTES,
    RECORD_TYPES,
    SCRATCH_NAME,
    decode_record,
)

STUBBORN = "trap '' TERM; setsid sh -c 'trap \"\" TERM; echo $$ > pid; while :; do sleep 1; done' & wait"

FILL = 'head -c 2M /dev/zero > "$(dirname "$DJINN_OUTPUT")/big" || true'


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def _pid(execution: Execution) -> int:
    path = execution.workspace / "pid"
    execution.until(lambda: path.exists() and path.read_text().endswith("\n"))
    return int(path.read_text())


def test_a_second_start_does_nothing(execution: Execution) -> None:
    journal = execution.command("echo once >> count").journal
    again = execution.run()
    count = (execution.workspace / "count").read_text()
    assert (again.exit_code, again.journal == journal, count) == (97, True, "once\n")


def test_a_guard_alone_stops_the_start(execution: Execution) -> None:
    execution.give(mode="command", script="true")
    (execution.directory / SCRATCH_NAME / GUARD_NAME).mkdir()
    ended = execution.run()
    assert (ended.exit_code, ended.journal) == (97, b"")


def test_a_directory_that_does_not_exist_is_a_broken_journal(execution: Execution) -> None:
    (execution.directory / SCRATCH_NAME).rmdir()
    execution.directory.rmdir()
    assert execution.run().exit_code == 98


WRONG: list[dict[str, Any]] = [
    {"version": 2},
    {"mode": "dance"},
    {"mode": "agent"},
    {"script": None},
    {"deadline_seconds": "soon"},
    {"deadline_seconds": 0},
    {"workspace": "/does/not/exist"},
    {"outputs": "A"},
    {"environment": {"A=B": "x"}},
    {"environment": {"A": "\0"}},
    {"surprise": 1},
]


@pytest.mark.parametrize("changes", WRONG, ids=str)
def test_a_bad_brief_finishes_as_an_error(execution: Execution, changes: dict[str, Any]) -> None:
    (execution.directory / BRIEF_NAME).write_bytes(brief_values(**changes))
    ended = execution.run()
    assert (ended.exit_code, ended.reason, len(ended.records)) == (0, "error", 1)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\xff"])
def test_a_brief_that_is_no_object_finishes_as_an_error(execution: Execution, text: bytes) -> None:
    (execution.directory / BRIEF_NAME).write_bytes(text)
    assert execution.run().reason == "error"


def test_a_missing_brief_finishes_as_an_error(execution: Execution) -> None:
    assert execution.run().reason == "error"


def test_the_deadline_ends_the_work(execution: Execution) -> None:
    ended = execution.command("sleep 1000", deadline_seconds=1)
    assert (ended.exit_code, ended.reason) == (0, "timeout")


def test_the_deadline_kills_a_stubborn_child_in_its_own_session(execution: Execution) -> None:
    ended = execution.command(STUBBORN, deadline_seconds=2)
    assert (ended.reason, _is_alive(_pid(execution))) == ("timeout", False)


def test_sigterm_finishes_as_cancelled(execution: Execution) -> None:
    execution.give(mode="command", script=STUBBORN)
    process = execution.start()
    _pid(execution)
    process.send_signal(signal.SIGTERM)
    ended = execution.wait(process)
    assert (ended.exit_code, ended.reason) == (0, "cancelled")


def test_sigterm_kills_a_stubborn_child_in_its_own_session(execution: Execution) -> None:
    execution.give(mode="command", script=STUBBORN)
    process = execution.start()
    pid = _pid(execution)
    process.send_signal(signal.SIGTERM)
    execution.wait(process)
    assert not _is_alive(pid)


def test_a_stopped_child_is_killed_too(execution: Execution) -> None:
    execution.give(mode="command", script="echo $$ > pid; kill -STOP $$")
    process = execution.start()
    pid = _pid(execution)
    process.send_signal(signal.SIGTERM)
    execution.wait(process)
    assert not _is_alive(pid)


def test_what_a_finished_script_left_behind_is_killed(execution: Execution) -> None:
    execution.command("setsid sh -c 'echo $$ > pid; exec sleep 1000' > /dev/null 2>&1 & while [ ! -s pid ]; do :; done")
    assert not _is_alive(_pid(execution))


def test_orphans_are_reaped_while_the_work_runs(execution: Execution) -> None:
    script = "for i in $(seq 20); do (sh -c 'exit 0' &) ; done; touch made; sleep 1000"
    execution.give(mode="command", script=script)
    process = execution.start()
    execution.until((execution.workspace / "made").exists)
    execution.until(lambda: _zombies(process.pid) == 0)
    process.send_signal(signal.SIGTERM)
    assert execution.wait(process).reason == "cancelled"


def _zombies(parent: int) -> int:
    count = 0
    for entry in Path("/proc").iterdir():
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split() if entry.name.isdigit() else []
        except OSError:
            continue
        count += bool(fields) and fields[0] == "Z" and int(fields[1]) == parent
    return count


def test_records_are_numbered_without_gaps(execution: Execution) -> None:
    ended = execution.command("for i in $(seq 300); do echo $i; echo $i >&2; done")
    assert [record.n for record in ended.records] == list(range(1, len(ended.records) + 1))


def test_every_record_type_is_known_and_small(execution: Execution) -> None:
    ended = execution.command("head -c 300000 /dev/zero; head -c 300000 /dev/urandom")
    assert {record.type for record in ended.records} <= RECORD_TYPES
    assert max(len(line) for line in ended.journal.split(b"\n")) <= MAX_RECORD_BYTES


def test_small_writes_are_joined(execution: Execution) -> None:
    ended = execution.command("for i in $(seq 2000); do echo x; done")
    assert len(ended.of("output")) < 400


def test_a_small_write_is_recorded_while_the_script_goes_on(execution: Execution) -> None:
    execution.give(mode="command", script="echo early; sleep 1000")
    process = execution.start()
    execution.until(lambda: any(record.data.get("text") == "early\n" for record in execution.records()))
    process.send_signal(signal.SIGTERM)
    assert execution.wait(process).reason == "cancelled"


def test_a_flood_ends_at_the_journal_limit(execution: Execution) -> None:
    ended = execution.command("yes", journal_bytes=300_000)
    assert (ended.exit_code, ended.reason) == (0, "output_limit")


@pytest.mark.parametrize("size", [2000, 100_000, 300_000])
def test_the_journal_never_passes_its_limit(execution: Execution, size: int) -> None:
    ended = execution.command("yes", journal_bytes=size)
    assert (ended.reason, len(ended.journal) <= size) == ("output_limit", True)


def test_a_full_disk_finishes_with_the_reason_disk(execution: Execution, small_disk: Path) -> None:
    execution.directory = small_disk
    ended = execution.command(FILL + "; yes | head -c 3000000")
    last = decode_record(ended.journal.splitlines()[-1])
    assert (ended.exit_code, last.type, last.data["error"]["reason"]) == (0, "finished", "disk")


def test_a_full_disk_leaves_no_gap_in_the_numbers(execution: Execution, small_disk: Path) -> None:
    execution.directory = small_disk
    lines = execution.command(FILL + "; yes | head -c 3000000").journal.split(b"\n")[:-1]
    numbers = [json.loads(line)["n"] for line in lines if line.endswith(b"}}")]
    assert numbers == list(range(1, len(numbers) + 1))


def test_a_full_disk_tears_one_line_at_most(execution: Execution, small_disk: Path) -> None:
    execution.directory = small_disk
    lines = execution.command(FILL + "; yes | head -c 3000000").journal.split(b"\n")
    assert len([line for line in lines[:-1] if not line.endswith(b"}}")]) <= 1


def test_a_disk_that_the_work_filled_while_it_succeeded_takes_the_last_record(
    execution: Execution, small_disk: Path
) -> None:
    execution.directory = small_disk
    ended = execution.command(FILL)
    assert ended.finished["status"] == "succeeded"


def test_a_journal_that_takes_nothing_ends_with_98(execution: Execution) -> None:
    execution.give(mode="command", script="true")
    (execution.directory / JOURNAL_NAME).symlink_to("/dev/full")
    process = execution.start()
    assert process.wait(timeout=30) == 98


def test_a_last_record_that_may_not_be_on_the_disk_ends_with_96(execution: Execution) -> None:
    """As on a disk that takes writes and fails to sync them: a pipe cannot be synced at all."""
    execution.give(mode="command", script="true")
    os.mkfifo(execution.directory / JOURNAL_NAME)
    process = execution.start()
    lines = (execution.directory / JOURNAL_NAME).read_bytes().splitlines()
    assert process.wait(timeout=30) == 96
    assert decode_record(lines[-1]).type == "finished"


def test_a_reader_of_its_complaints_that_is_gone_does_not_change_the_exit_code(execution: Execution) -> None:
    execution.give(mode="command", script="true")
    (execution.directory / JOURNAL_NAME).symlink_to("/dev/full")
    process = execution.start()
    assert process.stderr is not None
    process.stderr.close()
    assert process.wait(timeout=30) == 98


def test_the_kernel_is_offered_the_work_before_the_runtime(execution: Execution) -> None:
    ended = execution.command("cat /proc/self/oom_score_adj; cat /proc/$PPID/oom_score_adj")
    assert ended.text("output").split()[0] == "1000"
    assert ended.text("output").split()[1] != "1000"


def test_a_file_size_limit_closes_half_a_line(execution: Execution) -> None:
    execution.give(mode="command", script="yes | head -c 100000")
    command = ["prlimit", "--fsize=4096:unlimited", sys.executable, "-m", "djinn_runtime"]
    ended = execution.wait(execution.start(python=command))
    assert (ended.exit_code, len(ended.journal)) == (98, 4096)


def test_it_runs_without_site_packages_and_environment(execution: Execution) -> None:
    execution.give(mode="command", script="echo A=1 >> $DJINN_OUTPUT", outputs=["A"])
    code = (
        f"import sys, runpy; sys.path.insert(0, {str(RUNTIME)!r});"
        " runpy.run_module('djinn_runtime', run_name='__main__', alter_sys=True)"
    )
    assert execution.run(python=[sys.executable, "-I", "-S", "-c", code]).finished["outputs"] == {"A": "1"}


def test_start_time_and_size_are_reported(execution: Execution, capsys: pytest.CaptureFixture[str]) -> None:
    execution.give(mode="command", script="sleep 1000")
    began = time.monotonic()
    process = execution.start()
    execution.until(lambda: bool(execution.records()))
    seconds = time.monotonic() - began
    size = Path(f"/proc/{process.pid}/status").read_text().split("VmRSS:")[1].split()[0]
    process.send_signal(signal.SIGTERM)
    execution.wait(process)
    with capsys.disabled():
        sys.stdout.write(f"\nready after {seconds:.3f} s, {int(size) / 1024:.1f} MB resident\n")
    assert int(size) > 0


def test_the_package_imports_nothing_outside_of_the_standard_library(place: Path) -> None:
    code = (
        "import sys, pkgutil, importlib, djinn_runtime as d\n"
        "[importlib.import_module(m.name) for m in pkgutil.walk_packages(d.__path__, 'djinn_runtime.')"
        " if not m.name.endswith('__main__') and not m.name.endswith('.search')]\n"
        "known = set(sys.stdlib_module_names) | {'djinn_runtime', '__main__'}\n"
        "print({n.split('.')[0] for n in sys.modules} - known)"
    )
    variables = {"PYTHONPATH": str(RUNTIME), "PATH": os.environ["PATH"]}
    command = [sys.executable, "-S", "-c", code]
    done = subprocess.run(command, env=variables, cwd=place, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "set()\n"


LEADERLESS = """
import ctypes, os, sys, threading, time
def stay():
    while True:
        time.sleep(0.05)
        open("alive", "a").write(".")
threading.Thread(target=stay, daemon=True).start()
while not os.path.exists("alive"):
    time.sleep(0.01)
open("pid", "w").write(f"{os.getpid()}\\n")
ctypes.CDLL(None).syscall(60 if os.uname().machine == "x86_64" else 93, 0)  # exit: of this thread alone
"""


def test_a_process_whose_first_thread_has_ended_does_not_outlive_the_work(execution: Execution) -> None:
    """Its own state says zombie."""
    script = f"cat > leaderless.py <<'EOF'\n{LEADERLESS}EOF\nsetsid {sys.executable} leaderless.py &\n"
    ended = execution.command(script + "while ! [ -s pid ]; do sleep 0.05; done; sleep 0.3")
    pid = int((execution.workspace / "pid").read_text())
    size = (execution.workspace / "alive").stat().st_size
    assert ended.exit_code == 0
    assert not Path(f"/proc/{pid}").exists() or not _runs_a_thread(pid), size


def _runs_a_thread(pid: int) -> bool:
    states = [path.read_text().rpartition(")")[2].split()[0] for path in Path(f"/proc/{pid}/task").glob("*/stat")]
    return any(state not in "ZX" for state in states)
