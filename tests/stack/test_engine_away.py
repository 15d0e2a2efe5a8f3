"""A Docker engine that goes away and comes back, without and with a container running."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stack.live import Live, docker, wait_for

pytestmark = [
    pytest.mark.docker,
    pytest.mark.xdist_group("stack"),
    pytest.mark.timeout(400),
    pytest.mark.dockerd,
]

STEP = """\
name: Step
defaults: {retries: {max: 0}}
steps:
  - id: WORK
    run: |
      echo begun
      sleep 5
      echo done
"""


class Engine:
    """A private dockerd without network, that keeps containers alive while it is away.

    It has a network namespace of its own: an engine that starts without a bridge deletes its neighbour's `docker0`.
    """

    def __init__(self) -> None:
        self.root = Path(tempfile.mkdtemp(prefix="dk-"))
        self.url = f"unix://{self.root}/s"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        places = ("--data-root", f"{self.root}/d", "--exec-root", f"{self.root}/e", "--pidfile", f"{self.root}/p")
        options = ("--host", self.url, "--bridge", "none", "--iptables=false", "--live-restore", "--log-level", "error")
        with (self.root / "log").open("ab") as file:
            self._process = subprocess.Popen(
                ["unshare", "--net", "--", "dockerd", *places, *options], stdout=file, stderr=file
            )
        wait_for(self.answers, seconds=60, why="the engine")

    def answers(self) -> bool:
        command = ["docker", "--host", self.url, "version"]
        return subprocess.run(command, capture_output=True, timeout=20, check=False).returncode == 0

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(60)
            self._process = None

    def load(self, image: str) -> None:
        with subprocess.Popen(["docker", "save", image], stdout=subprocess.PIPE) as saved:
            command = ["docker", "--host", self.url, "load"]
            subprocess.run(command, stdin=saved.stdout, capture_output=True, timeout=200, check=True)

    def clean(self) -> None:
        try:
            if self._process is not None:
                for container in docker("--host", self.url, "ps", "-aq").split():
                    docker("--host", self.url, "rm", "-f", container)
        finally:
            self.stop()
            # An engine that keeps containers alive leaves its data mounted over itself.
            subprocess.run(["umount", "--lazy", f"{self.root}/d"], capture_output=True, timeout=20, check=False)
            shutil.rmtree(self.root, ignore_errors=True)


@pytest.fixture(scope="module")
def engine(image: str) -> Iterator[Engine]:
    private = Engine()
    try:
        private.start()
        private.load(image)
        yield private
    finally:
        private.clean()


@pytest.fixture(scope="module")
def apart(engine: Engine, image: str) -> Iterator[Live]:
    """A stack that uses the private engine."""
    stack = Live(image=image, environment={"DOCKER_HOST": engine.url})
    try:
        stack.add_pipeline("work", STEP)
        stack.up()
        yield stack
    finally:
        stack.clean()


def test_a_step_waits_for_an_engine_that_is_away_and_goes_on_when_it_is_back(apart: Live, engine: Engine) -> None:
    engine.stop()
    run = apart.start("work")
    notice = apart.await_event(run, "notice", step="WORK")
    engine.start()
    assert "trying again" in notice["data"]["text"]
    assert apart.await_end(run)["status"] == "succeeded"
    assert len(apart.steps(run)) == 1


def test_a_step_whose_engine_restarts_in_the_middle_goes_on(apart: Live, engine: Engine) -> None:
    run = apart.start("work")
    apart.await_event(run, "output", step="WORK")
    engine.stop()
    engine.start()
    assert apart.await_end(run)["status"] == "succeeded"
    assert [(s["attempt"], s["lease_token"]) for s in apart.steps(run)] == [(1, 1)]


def test_a_cancel_while_the_engine_is_away_ends_a_run_that_has_not_begun(apart: Live, engine: Engine) -> None:
    engine.stop()
    try:
        run = apart.start("work")
        apart.await_event(run, "notice", step="WORK")
        assert apart.call("POST", f"runs/{run}/cancel/")[0] == 202
        assert apart.await_end(run, seconds=30)["status"] == "cancelled"
    finally:
        engine.start()
