"""Plain processes: nothing gets away, and nothing of the worker gets in."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from runner_bench import Bench, wait_until

from djinn.runner.base import ContainerSpec, Limits, Phase, SpecificationRefused
from djinn.runner.files import read_json
from djinn.runner.process import LOST_EXIT_CODE, ProcessRunner

RUNAWAY = """
import os, subprocess, sys, time
loop = "import os, time; os.setsid(); open('pid', 'w').write(str(os.getpid())); time.sleep(600)"
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        subprocess.Popen([sys.executable, "-c", loop])
        time.sleep(600)
    os._exit(0)
while not os.path.exists("pid") or not open("pid").read():
    time.sleep(0.01)
open(directory + "/up", "w").write(open("pid").read())
"""


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def process_ids(bench: Bench, spec: ContainerSpec) -> dict[str, int]:
    assert isinstance(bench.runner, ProcessRunner)
    found = read_json(bench.runner.root / spec.execution / "process.json")
    assert isinstance(found, dict)
    return {name: identity["pid"] for name, identity in found.items()}


def test_it_says_that_it_does_not_isolate(process_bench: Bench) -> None:
    assert (process_bench.runner.isolates, "NOT isolated" in process_bench.runner.ping()) == (False, True)


@pytest.mark.parametrize("ending", ["", "time.sleep(600)"], ids=["end", "stop"])
def test_descendants_that_left_the_session_die_with_the_execution(process_bench: Bench, ending: str) -> None:
    spec = process_bench.spec(RUNAWAY + ending)
    process_bench.runner.start(spec)
    runaway = int(process_bench.wait_for_file(spec, "up"))
    if ending:
        process_bench.runner.stop(spec.execution, 0)
    process_bench.ended(spec)
    wait_until(lambda: not is_running(runaway), "the runaway is dead")


def test_the_execution_outlives_the_worker_that_started_it(process_bench: Bench) -> None:
    spec = process_bench.spec("import time\nopen(directory + '/up', 'w').write('up')\ntime.sleep(600)")
    assert isinstance(process_bench.runner, ProcessRunner)
    places = [spec.workspace, spec.execution_directory, spec.gateway_directory, spec.runtime_directory]
    starter = f"""
import os, signal
from pathlib import Path
from djinn.runner.base import ContainerSpec
from djinn.runner.process import ProcessRunner
places = [Path(place) for place in {[str(place) for place in places]!r}]
ProcessRunner(Path({str(process_bench.runner.root)!r})).start(ContainerSpec({spec.execution!r}, "none", *places, 60))
os.killpg(0, signal.SIGKILL)
"""
    command = [sys.executable, "-c", starter]
    worker = subprocess.run(command, check=False, start_new_session=True, cwd=Path(__file__).parents[2], timeout=60)
    process_bench.wait_for_file(spec, "up")
    assert (worker.returncode, process_bench.phase(spec)) == (-signal.SIGKILL, Phase.RUNNING)


def test_a_killed_supervisor_takes_its_child_along_and_counts_as_lost(process_bench: Bench) -> None:
    spec = process_bench.spec("import time\nopen(directory + '/up', 'w').write('up')\ntime.sleep(600)")
    process_bench.runner.start(spec)
    process_bench.wait_for_file(spec, "up")
    pids = process_ids(process_bench, spec)
    os.kill(pids["supervisor"], signal.SIGKILL)
    wait_until(lambda: not is_running(pids["child"]), "the child is dead")
    assert process_bench.ended(spec).exit_code == LOST_EXIT_CODE


def test_a_process_that_took_over_the_number_is_left_alone(process_bench: Bench) -> None:
    bystander = subprocess.Popen(["sleep", "600"])
    try:
        spec = process_bench.spec()
        state = process_bench.runner.root / spec.execution  # type: ignore[attr-defined]
        state.mkdir(parents=True)
        identity = f'{{"pid": {bystander.pid}, "started": 1, "boot": "another"}}'
        (state / "process.json").write_text(f'{{"supervisor": {identity}, "child": {identity}}}')
        assert process_bench.phase(spec) is Phase.EXITED
        process_bench.runner.stop(spec.execution, 0)
        process_bench.runner.remove(spec.execution)
        assert is_running(bystander.pid)
    finally:
        bystander.kill()
        bystander.wait()


def test_a_start_that_died_half_way_is_finished_by_the_next_one(process_bench: Bench) -> None:
    spec = process_bench.spec("raise SystemExit(9)")
    (process_bench.runner.root / spec.execution).mkdir(parents=True)  # type: ignore[attr-defined]
    assert process_bench.phase(spec) is Phase.CREATED
    assert process_bench.run(spec).exit_code == 9


def test_the_environment_is_four_variables_and_no_more(process_bench: Bench) -> None:
    answer = process_bench.answer("import os\nopen(directory + '/answer', 'w').write(' '.join(sorted(os.environ)))")
    assert answer == "HOME LANG PATH PYTHONPATH"


def test_one_process_cannot_take_more_memory_than_allowed(process_bench: Bench) -> None:
    script = "try:\n    x = bytearray(500_000_000)\n    said = 'had'\nexcept MemoryError:\n    said = 'refused'\n"
    limits = Limits(memory_bytes=200_000_000)
    assert process_bench.answer(script + "open(directory + '/answer', 'w').write(said)", limits=limits) == "refused"


def test_a_home_full_of_read_only_directories_is_removed(process_bench: Bench) -> None:
    spec = process_bench.spec(
        "import os\nhome = os.environ['HOME'] + '/a/b'\nos.makedirs(home)\nopen(home + '/f', 'w').close()\n"
        "os.chmod(home, 0o500)\nos.chmod(os.path.dirname(home), 0o500)\n"
    )
    process_bench.run(spec)
    process_bench.runner.remove(spec.execution)
    assert process_bench.phase(spec) is Phase.ABSENT


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", "-x", "x" * 200, "a\nb"])
def test_a_name_that_is_no_execution_is_refused(process_bench: Bench, name: str) -> None:
    with pytest.raises(SpecificationRefused):
        process_bench.runner.remove(name)
