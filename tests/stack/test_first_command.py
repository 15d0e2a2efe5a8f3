"""What a person meets who starts Djinn: all of it there, or a sentence about what is not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from djinn.core.installation.environment import PROVIDERS_WITH_KEYS
from djinn.core.installation.paths import PROJECT
from tests.stack.live import OURS, Live
from tests.stack.plain import plain_python

pytestmark = [pytest.mark.xdist_group("processes"), pytest.mark.timeout(300)]

CANARY = "canary-0d5e11"
DJINN = ("gateway", "web", "control", "agents", "beat")
IMPORTS = """\
import importlib, os, pkgutil
os.environ["DJANGO_SETTINGS_MODULE"] = "djinn.settings"
import django
django.setup()
import djinn, runtime_image.djinn_runtime
for package in (djinn, runtime_image.djinn_runtime):
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
"""


@pytest.fixture
def python() -> Path:
    """The interpreter with the packages of requirements.txt alone."""
    return plain_python()


@pytest.fixture
def stack() -> Iterator[Live]:
    """A stack that is not up yet."""
    made = Live(environment={"DJINN_RUNNER": "process"})
    yield made
    made.clean()


@pytest.fixture(scope="module")
def running() -> Iterator[Live]:
    """A stack that is up, with the keys of two providers in the environment of whoever started it."""
    keys = {"OPENAI_API_KEY": CANARY, "DJINN_PROVIDER_HOUSE_KEY": CANARY, "DJINN_PROVIDER_HOUSE_URL": "http://house/v1"}
    made = Live(environment={"DJINN_RUNNER": "process", **keys})
    try:
        made.up()
        yield made
    finally:
        made.clean()


def _environment(home: Path, **more: str) -> dict[str, str]:
    ours = {name: value for name, value in os.environ.items() if name not in OURS}
    return {**ours, "DJINN_HOME": str(home / "var"), "DJINN_RUNNER": "process", **more}


def _broken_packages(home: Path) -> str:
    """A folder for PYTHONPATH in which `packaging` is missing for whoever wants to import it."""
    package = home / "broken" / "packaging"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(
        "raise ModuleNotFoundError(\"No module named 'packaging'\", name='packaging')\n"
    )
    return str(package.parent)


# --- packages ---------------------------------------------------------------------------------------------------------
def test_every_module_can_be_imported_with_the_locked_packages_alone(python: Path, stack: Live) -> None:
    done = subprocess.run(
        [python, "-c", IMPORTS], cwd=PROJECT, env=_environment(stack.home), capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_every_process_starts_with_the_locked_packages_alone(python: Path, stack: Live) -> None:
    stack.up(python=python)
    assert all(str(python.parent) in stack.processes()[stack.pid(name)] for name in DJINN)
    stack.down()


# --- what dies at its start -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("command", ["up", "demo"])
def test_a_process_that_dies_at_its_start_is_told_in_a_sentence(command: str, stack: Live) -> None:
    done = subprocess.run(
        [sys.executable, "manage.py", command, "--port", "0"],
        cwd=PROJECT, env=_environment(stack.home, PYTHONPATH=_broken_packages(stack.home)),
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    first, log = done.stderr.strip().splitlines()
    assert "ended with exit code 1 at its start: ModuleNotFoundError: No module named 'packaging'" in first
    name = first.removeprefix("CommandError: ").split()[0]
    assert log == f"Its log: {stack.installation.logs / f'{name}.log'}"
    assert "Traceback" in Path(log.removeprefix("Its log: ")).read_text()
    assert "Traceback" not in done.stdout
    assert stack.processes() == {}


def test_what_nobody_expected_is_told_without_a_traceback(stack: Live) -> None:
    for more, is_shown in (({}, False), ({"DJINN_DEBUG": "1"}, True)):
        done = subprocess.run(
            [sys.executable, "manage.py", "up"], cwd=PROJECT, timeout=120, check=False, capture_output=True, text=True,
            env=_environment(stack.home, DJINN_LEASE_SECONDS="five", **more),
        )  # fmt: skip
        assert (done.returncode, "Traceback" in done.stderr) == (1, is_shown), done.stderr
        assert "could not convert string to float" in done.stderr
    assert "Traceback" in (stack.installation.logs / "manage.log").read_text()


# --- a stack that runs ------------------------------------------------------------------------------------------------
def test_providers_keys_are_in_the_gateway_alone(running: Live) -> None:
    assert running.process is not None
    environments = {pid: _environ(pid) for pid in running.processes()}
    has_canary = {pid for pid, text in environments.items() if CANARY in text}
    assert has_canary == {running.pid("gateway"), running.process.pid}  # and who was given them by the person's shell
    for name in ("web", "control", "agents", "beat"):
        assert f"{PROVIDERS_WITH_KEYS}=house,openai\0" in environments[running.pid(name)]
    assert running.installation.providers_with_keys == "house,openai"


@pytest.mark.bare
def test_an_agent_that_runs_as_a_process_gets_no_key(running: Live) -> None:
    running.add_pipeline("steal", 'steps: [{id: STEAL, run: \'env; tr "\\\\0" "\\\\n" < /proc/$PPID/environ\'}]\n')
    run = running.start("steal")
    assert running.await_end(run)["status"] == "succeeded"
    said = "".join(str(event["data"].get("text")) for event in running.events(run, "output"))
    assert "DJINN_OUTPUT=" in said
    assert CANARY not in said


def test_a_second_start_prints_the_address(running: Live) -> None:
    again = running.manage("up")
    assert (again.returncode, again.stdout) == (0, f"Djinn is running already: {running.url}\n")


def test_a_port_that_another_program_has_is_told_in_a_sentence(running: Live) -> None:
    done = subprocess.run(
        [sys.executable, "manage.py", "up", "--port", str(running.port)], cwd=PROJECT, timeout=60, check=False,
        env=_environment(running.home / "other"), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith(f"CommandError: Port {running.port} of 127.0.0.1 is taken by another program.")
    assert len(done.stderr.splitlines()) == 1


def test_a_demo_whose_fleet_is_dead_ends_by_itself(stack: Live) -> None:
    stack.up()
    assert stack.process is not None
    stack.process.send_signal(signal.SIGSTOP)  # or it would start the workers again
    stack.kill("control")
    stack.kill("agents")
    demo = subprocess.run(
        [sys.executable, "manage.py", "demo"], cwd=PROJECT, capture_output=True, text=True, timeout=150, check=False,
        env=_environment(stack.home, DJINN_SILENT_SECONDS="2"),
    )  # fmt: skip
    stack.process.send_signal(signal.SIGCONT)
    assert demo.returncode == 1, demo.stdout
    assert demo.stderr.startswith("CommandError: The run goes on no more: no control worker has run a canary task")
    assert str(stack.installation.logs) in demo.stderr


def test_a_worker_that_begins_to_die_at_each_start_ends_the_stack(stack: Live) -> None:
    broken = stack.home / "later"
    stack.up(more={"PYTHONPATH": str(broken), "DJINN_LONGEST_PAUSE_SECONDS": "0.2"})
    broken.mkdir()
    (broken / "sitecustomize.py").write_text(
        textwrap.dedent("""
            import sys
            if "celery" in " ".join(sys.orig_argv) and "beat" in sys.orig_argv:
                sys.exit("somebody broke it")
        """)
    )
    stack.kill("beat")
    assert stack.process is not None
    assert stack.process.wait(120) == 1
    said = (stack.home / "up.log").read_text()
    assert "CommandError: beat ended with exit code 1 again, 6 times" in said
    assert "in between: SystemExit: somebody broke it" in said
    assert "Traceback" not in said
    assert stack.processes() == {}


def _environ(pid: int) -> str:
    return (Path("/proc") / str(pid) / "environ").read_bytes().decode(errors="replace")
