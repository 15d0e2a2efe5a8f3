"""What every runner promises, whatever it runs executions with."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from runner_bench import Bench

from djinn.runner.base import Limits, Phase, RunnerError
from djinn.runner.docker import DockerRunner
from djinn.runner.process import ProcessRunner

SLEEPER = """
import time
open(directory + "/up", "w").write("up")
time.sleep(600)
"""
STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open(directory + "/up", "w").write("up")
time.sleep(600)
"""
GENTLE = """
import signal, sys, time
signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(5))
open(directory + "/up", "w").write("up")
time.sleep(600)
"""
COUNTER = """
open(directory + "/count", "a").write("1")
"""


def test_a_ping_describes_the_engine_in_one_line(bench: Bench) -> None:
    assert "\n" not in bench.runner.ping()


def test_an_execution_that_never_was_is_absent(bench: Bench) -> None:
    assert bench.runner.inspect("never-was").phase is Phase.ABSENT


@pytest.mark.parametrize("code", [0, 7, 98])
def test_the_exit_code_of_the_runtime_is_reported(bench: Bench, code: int) -> None:
    assert bench.run(bench.spec(f"raise SystemExit({code})")).exit_code == code


def test_a_running_execution_has_no_exit_code(bench: Bench) -> None:
    spec = bench.spec(SLEEPER)
    bench.runner.start(spec)
    bench.wait_for_file(spec, "up")
    assert (bench.phase(spec), bench.runner.inspect(spec.execution).exit_code) == (Phase.RUNNING, None)


def test_a_second_start_of_a_running_execution_does_nothing(bench: Bench) -> None:
    spec = bench.spec(COUNTER + SLEEPER)
    bench.runner.start(spec)
    bench.wait_for_file(spec, "up")
    bench.runner.start(spec)
    bench.runner.stop(spec.execution, 0)
    bench.ended(spec)
    assert (spec.execution_directory / "scratch" / "count").read_text() == "1"


def test_a_start_of_an_exited_execution_does_not_run_it_again(bench: Bench) -> None:
    spec = bench.spec(COUNTER + "raise SystemExit(3)")
    bench.run(spec)
    bench.runner.start(spec)
    assert (bench.ended(spec).exit_code, (spec.execution_directory / "scratch" / "count").read_text()) == (3, "1")


def test_starts_at_the_same_time_run_the_execution_once(bench: Bench) -> None:
    spec = bench.spec("import os\nos.rmdir(directory + '/started')\n" + COUNTER)
    errors: list[Exception] = []

    def start() -> None:
        try:
            bench.runner.start(spec)
        except RunnerError as exc:
            errors.append(exc)

    threads = [threading.Thread(target=start) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    bench.ended(spec)
    assert (errors, (spec.execution_directory / "scratch" / "count").read_text()) == ([], "1")


def test_a_start_after_the_guard_was_made_runs_nothing(bench: Bench) -> None:
    spec = bench.spec(COUNTER)
    (spec.execution_directory / "scratch" / "started").mkdir()
    assert bench.run(spec).exit_code == 97
    assert not (spec.execution_directory / "scratch" / "count").exists()


def test_stop_asks_with_sigterm_first(bench: Bench) -> None:
    spec = bench.spec(GENTLE)
    bench.runner.start(spec)
    bench.wait_for_file(spec, "up")
    bench.runner.stop(spec.execution, 30)
    assert bench.runner.inspect(spec.execution).exit_code == 5


def test_stop_kills_a_stubborn_execution_after_the_grace(bench: Bench) -> None:
    spec = bench.spec(STUBBORN)
    bench.runner.start(spec)
    bench.wait_for_file(spec, "up")
    bench.runner.stop(spec.execution, 0.2)
    state = bench.runner.inspect(spec.execution)
    assert (state.phase, state.exit_code) == (Phase.EXITED, 137)


@pytest.mark.parametrize("verb", ["stop", "remove"])
def test_stopping_and_removing_what_never_was_is_no_error(bench: Bench, verb: str) -> None:
    runner = bench.runner
    runner.stop("never-was", 0) if verb == "stop" else runner.remove("never-was")
    assert runner.executions() == {}


def test_stopping_an_exited_execution_keeps_its_exit_code(bench: Bench) -> None:
    spec = bench.spec("raise SystemExit(4)")
    bench.run(spec)
    bench.runner.stop(spec.execution, 0)
    assert bench.runner.inspect(spec.execution).exit_code == 4


def test_a_removed_execution_is_absent(bench: Bench) -> None:
    spec = bench.spec(STUBBORN)
    bench.runner.start(spec)
    bench.wait_for_file(spec, "up")
    bench.runner.remove(spec.execution)
    bench.runner.remove(spec.execution)
    assert (bench.phase(spec), bench.runner.executions()) == (Phase.ABSENT, {})


def test_executions_lists_the_phase_of_each(bench: Bench) -> None:
    running, exited = bench.spec(SLEEPER), bench.spec("")
    bench.runner.start(running)
    bench.run(exited)
    assert bench.runner.executions() == {running.execution: Phase.RUNNING, exited.execution: Phase.EXITED}


ADOPTER = """
import sys
from pathlib import Path
from djinn.runner.docker import DockerRunner
from djinn.runner.process import ProcessRunner
kind, where, execution = sys.argv[1:]
runner = DockerRunner(where) if kind == "docker" else ProcessRunner(Path(where))
print(runner.inspect(execution).phase, runner.executions()[execution])
runner.stop(execution, 30)
print(runner.inspect(execution).exit_code)
"""


@contextmanager
def serving(server: socket.socket, directory: Path) -> Iterator[None]:
    """The server greets its first client. It is bound by a short path, since those of sockets are limited."""
    short = Path(tempfile.mkdtemp(prefix="djinn-"))
    link = short / "d"
    link.symlink_to(directory)
    server.bind(str(link / "g"))
    (directory / "g").chmod(0o666)
    server.listen()

    def greet() -> None:
        client, _ = server.accept()
        with client:
            client.sendall(b"hello")

    thread = threading.Thread(target=greet, daemon=True)
    thread.start()
    yield
    thread.join(10)
    shutil.rmtree(short)


def where_others_find_it(runner: object) -> str:
    if isinstance(runner, DockerRunner):
        return runner.installation
    assert isinstance(runner, ProcessRunner)
    return str(runner.root)


def test_another_process_finds_and_stops_the_execution(bench: Bench) -> None:
    spec = bench.spec(GENTLE)
    bench.runner.start(spec)
    bench.wait_for_file(spec, "up")
    command = [sys.executable, "-c", ADOPTER, bench.runner.name, where_others_find_it(bench.runner), spec.execution]
    adopter = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=60, cwd=Path(__file__).parents[2]
    )
    assert (adopter.stdout.split(), adopter.stderr) == (["running", "running", "5"], "")


def test_the_inside_paths_are_where_the_runtime_finds_its_directories(bench: Bench) -> None:
    spec = bench.spec()
    paths = bench.runner.paths(spec)
    (spec.gateway_directory / "mark").write_text("gateway")
    (spec.execution_directory / "scratch" / "script.py").write_text(
        f"import os; assert os.path.samefile(os.getcwd(), {paths.workspace!r})\n"
        f"assert os.path.samefile(directory, {paths.execution_directory!r} + '/scratch')\n"
        f"text = open({paths.gateway_directory!r} + '/mark').read()\n"
        f"open({paths.workspace!r} + '/seen', 'w').write(text)\n"
    )
    assert bench.run(spec).exit_code == 0
    assert (spec.workspace / "seen").read_text() == "gateway"


def test_a_socket_in_the_gateway_directory_can_be_reached(bench: Bench) -> None:
    spec = bench.spec()
    address = f"{bench.runner.paths(spec).gateway_directory}/g"
    (spec.execution_directory / "scratch" / "script.py").write_text(
        "import socket\n"
        "client = socket.socket(socket.AF_UNIX)\n"
        f"client.connect({address!r})\n"
        "open(directory + '/answer', 'wb').write(client.recv(5))\n"
    )
    with socket.socket(socket.AF_UNIX) as server, serving(server, spec.gateway_directory):
        bench.run(spec)
    assert (spec.execution_directory / "scratch" / "answer").read_text() == "hello"


def test_the_environment_holds_nothing_of_the_workers(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJINN_SECRET_CANARY", "canary")
    answer = bench.answer("import os\nopen(directory + '/answer', 'w').write(repr(dict(os.environ)))")
    assert "canary" not in answer.lower()


def test_the_environment_of_the_spec_reaches_the_runtime(bench: Bench) -> None:
    spec = bench.spec(
        "import os\nopen(directory + '/answer', 'w').write(os.environ['GREETING'])", environment={"GREETING": "hi"}
    )
    bench.run(spec)
    assert (spec.execution_directory / "scratch" / "answer").read_text() == "hi"


def test_no_core_file_and_few_open_files_are_allowed(bench: Bench) -> None:
    script = """
import resource
limits = [resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_CORE, resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE)]
open(directory + '/answer', 'w').write(repr(limits))
"""
    limits = Limits(open_files=100, file_bytes=1_000_000)
    assert bench.answer(script, limits=limits) == "[0, 100, 1000000]"
