"""The commands of the README, as a person types them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from djinn.core.installation.paths import PROJECT
from tests.stack.live import OURS, Live

pytestmark = [pytest.mark.xdist_group("stack"), pytest.mark.timeout(300)]

STEP = """\
steps:
  - id: WORK
    retries: {max: 0}
    run: |
      echo "it says hello"
      exit %d
"""


@pytest.fixture
def home() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="dj-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path, ignore_errors=True)


def test_a_followed_run_that_succeeds_shows_its_output_and_exits_0(live: Live) -> None:
    live.add_pipeline("well", STEP % 0)
    done = live.manage("run", "well", "--follow", seconds=120)
    assert (done.returncode, "it says hello" in done.stdout, "Succeeded" in done.stdout) == (0, True, True), done.stderr
    assert f"{live.url}/runs/" in done.stdout


def test_a_followed_run_that_fails_says_why_and_exits_1(live: Live) -> None:
    live.add_pipeline("ill", STEP % 3)
    done = live.manage("run", "ill", "--follow", seconds=120)
    assert (done.returncode, "exit code 3" in done.stdout) == (1, True), done.stdout


@pytest.mark.bare
def test_the_demo_without_a_docker_engine_says_so_loudly_and_mends_the_package(home: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in OURS}
    environment |= {
        "DJINN_HOME": str(home / "var"),
        "DOCKER_HOST": f"unix://{home}/nobody.sock",
        "DJINN_RUNNER": "auto",
    }
    command = [sys.executable, "manage.py", "demo", "--port", "0"]
    done = subprocess.run(
        command, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "NOT isolated" in done.stdout
    assert "+    return statistics.median(lengths)" in done.stdout
    assert "pass now" in done.stdout


def test_a_demo_whose_worker_is_killed_ends_well_all_the_same(home: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name not in OURS}
    environment |= {"DJINN_HOME": str(home / "var"), "DJINN_RUNNER": "process", "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "manage.py", "demo", "--port", "0"]
    with subprocess.Popen(command, cwd=PROJECT, env=environment, stdout=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        seen = []
        for line in demo.stdout:
            seen.append(line)
            if line.startswith("FIX") and not any(text.startswith("FIX") for text in seen[:-1]):
                os.kill(agents_worker_of(home), signal.SIGKILL)
        assert demo.wait(60) == 0, "".join(seen)
    assert "pass now" in "".join(seen)


def agents_worker_of(home: Path) -> int:
    """The process id of the agents worker whose installation is below `home`."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            line, environment = (entry / "cmdline").read_bytes(), (entry / "environ").read_bytes()
        except OSError:
            continue  # it ended while we looked
        if b"agents@" in line and str(home).encode() in environment:
            return int(entry.name)
    raise AssertionError(f"no agents worker of {home}")
