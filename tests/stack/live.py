"""A whole stack of real processes in a folder of its own, started as people start it, and ways to hurt it."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
from psycopg.rows import dict_row

from djinn.core.installation.paths import PROJECT, Installation
from djinn.core.installation.stack import free_port

OURS = ("DATABASE_URL", "REDIS_URL", "DJINN_BROKER_PREFIX", "PYTEST_XDIST_WORKER", "DJINN_TEST_SERVERS")
UP_SECONDS = 90.0
RUN_SECONDS = 90.0

MARKS = {
    "gateway": "djinn.gateway.asgi",
    "web": "djinn.asgi:application",
    "control": "-Q control",
    "agents": "-Q agents",
    "beat": "-A djinn beat",
    "redis": "redis-server",
    "postgres": "bin/postgres -D",
}
"""What tells a part of the stack in its command line."""

Row = dict[str, Any]


def wait_for(what: Callable[[], Any], *, seconds: float = 30.0, why: str = "") -> Any:
    """The first true value of `what`; fails the test when it does not come in time."""
    deadline = time.monotonic() + seconds
    while not (value := what()):
        assert time.monotonic() < deadline, f"{why or what} did not come true in {seconds} s"
        time.sleep(0.02)
    return value


def measured(text: str) -> None:
    """Tell a figure to whoever runs the tests with `-s`; nothing is asserted about speed."""
    sys.stdout.write(f"\n{text}\n")


class Live:
    """`manage.py up` in a temporary home, with pipelines of its own beside the demo's."""

    def __init__(self, *, image: str = "none", environment: dict[str, str] | None = None) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="dj-"))
        self.home.chmod(0o755)
        self.installation = Installation(self.home / "var")
        self.pipelines = self.home / "pipelines"
        shutil.copytree(PROJECT / "pipelines", self.pipelines)
        self.port = free_port(0)  # any: two suites at once must not talk to each other's stack
        self.url = f"http://127.0.0.1:{self.port}"
        self._environment = {
            **{name: value for name, value in os.environ.items() if name not in OURS},
            "DJINN_HOME": str(self.installation.home),
            "DJINN_RUNNER": "docker",
            "DJINN_IMAGE": image,
            "DJINN_PIPELINES": str(self.pipelines),
            "DJINN_INSTALLATION": self.home.name.replace("_", "x"),
            "PYTHONUNBUFFERED": "1",
            **(environment or {}),
        }
        self._engine = self._environment.get("DOCKER_HOST", "unix:///var/run/docker.sock")
        self.process: subprocess.Popen[bytes] | None = None
        self._key = ""

    # --- its life -----------------------------------------------------------------------------------------------------
    def up(self, *, python: Path = Path(sys.executable), more: dict[str, str] | None = None) -> None:
        """Start the stack and wait until it says that it is up; `more` is in this start's environment alone."""
        output = self.home / "up.log"
        with output.open("wb") as file:
            self.process = subprocess.Popen(
                [str(python), "manage.py", "up", "--port", str(self.port)],
                cwd=PROJECT, env={**self._environment, **(more or {})},
                stdin=subprocess.DEVNULL, stdout=file, stderr=file,
            )  # fmt: skip

        def is_up() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, output.read_text()
            return "Djinn is up" in output.read_text()

        wait_for(is_up, seconds=UP_SECONDS, why="the stack")

    def down(self, number: signal.Signals = signal.SIGINT, *, seconds: float = 40.0) -> float:
        """Stop the stack as Ctrl-C does; how long it took."""
        assert self.process is not None
        began = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(seconds)
        return time.monotonic() - began

    def clean(self) -> None:
        """Leave nothing: processes, containers, files."""
        try:
            if self.process is not None and self.process.poll() is None:
                self.down()
        finally:
            for pid in self.processes():
                os.kill(pid, signal.SIGKILL)
            for container in self.containers():
                self.docker("rm", "-f", container)
            shutil.rmtree(self.home, ignore_errors=True)

    # --- its processes and containers ---------------------------------------------------------------------------------
    def processes(self) -> dict[int, str]:
        """Every process of this home, but for containers' own: pid and command line.

        By environment, command line or working directory: Redis and PostgreSQL write their titles over the first two.
        """
        found = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                try:
                    line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    places = (entry / "environ").read_bytes().decode(errors="replace"), line, os.readlink(entry / "cwd")
                except OSError:
                    continue  # it ended while we looked
                if line and any(str(self.installation.home) in place for place in places):
                    found[int(entry.name)] = line
        return found

    def pid(self, name: str) -> int:
        """The process id of a part of the stack: gateway, web, control, agents, beat, redis, postgres."""
        found: list[int] = wait_for(lambda: self.pids(name), why=f"process {name}")
        return found[0]

    def pids(self, name: str) -> list[int]:
        """The process ids of that part now, the lowest first: none while it is down."""
        return sorted(pid for pid, line in self.processes().items() if MARKS[name] in line)

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> int:
        """Send a signal to a part of the stack; its process id."""
        pid = self.pid(name)
        os.kill(pid, number)
        return pid

    def containers(self, *, all_of_them: bool = True) -> list[str]:
        """Names of this installation's containers; none where steps run without an engine."""
        if self._environment["DJINN_RUNNER"] != "docker":
            return []
        label = f"label=djinn.installation={self._environment['DJINN_INSTALLATION']}"
        options = ("--all",) if all_of_them else ()
        return self.docker("ps", *options, "--filter", label, "--format", "{{.Names}}").split()

    def sockets(self) -> list[str]:
        """Every Unix socket in the home, by its path there."""
        home = self.installation.home
        return [str(path.relative_to(home)) for path in home.rglob("*") if path.is_socket()]

    def docker(self, *arguments: str) -> str:
        """What the command `docker` printed, of the engine that this stack uses."""
        return docker("--host", self._engine, *arguments)

    def manage(self, *arguments: str, seconds: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run a command of `manage.py` against this stack."""
        command = [sys.executable, "manage.py", *arguments]
        return subprocess.run(
            command, cwd=PROJECT, env=self._environment, capture_output=True, text=True, timeout=seconds, check=False
        )

    # --- its rows -----------------------------------------------------------------------------------------------------
    def rows(self, query: str, *values: Any) -> list[Row]:
        """What the database answers."""
        with psycopg.connect(self.installation.database_url, row_factory=dict_row, autocommit=True) as connection:
            return connection.execute(query, values).fetchall()  # type: ignore[arg-type]

    def events(self, run: int, *types: str) -> list[Row]:
        """The run's log, in order; only some types when they are named."""
        rows = self.rows(
            'SELECT e.seq, e.type, e.data, e.execution, e."offset" FROM events_event e'
            " JOIN events_stream s ON s.id = e.stream_id WHERE s.name = %s ORDER BY e.seq",
            f"run-{run}",
        )
        return [row for row in rows if not types or row["type"] in types]

    def steps(self, run: int) -> list[Row]:
        """The run's step runs in their order, each with what it left and how often its execution was claimed."""
        return self.rows(
            "SELECT s.id, s.step, s.visit, s.attempt, s.status, s.reason, s.message, s.outputs, s.execution_id,"
            " e.lease_token, e.status AS execution_status, e.diff, e.run_diff, e.host FROM runs_steprun s"
            " LEFT JOIN executions_execution e ON e.id = s.execution_id WHERE s.run_id = %s ORDER BY s.number",
            run,
        )

    def run_row(self, run: int) -> Row:
        return self.rows("SELECT * FROM runs_run WHERE id = %s", run)[0]

    # --- what people do -----------------------------------------------------------------------------------------------
    def call(
        self, method: str, path: str, body: Any = None, *, headers: dict[str, str] | None = None, seconds: float = 20
    ) -> tuple[int, Any]:
        """Ask the REST API as the administrator; status and JSON."""
        if not self._key:
            made = self.manage("token", "admin")
            assert made.returncode == 0, made.stderr
            self._key = made.stdout.strip().splitlines()[-1]
        request = urllib.request.Request(
            f"{self.url}/api/v1/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Authorization": f"Bearer {self._key}", "Content-Type": "application/json", **(headers or {})},
        )
        try:
            with urllib.request.urlopen(request, timeout=seconds) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as exc:
            with exc:
                return exc.code, json.load(exc)

    def start(self, pipeline: str, **inputs: Any) -> int:
        """Start a run; its number."""
        status, body = self.call("POST", "runs/", {"pipeline": pipeline, "inputs": inputs})
        assert status == 201, body
        return int(body["id"])

    def add_pipeline(self, name: str, text: str) -> None:
        (self.pipelines / f"{name}.yaml").write_text(text)

    def await_end(self, run: int, *, seconds: float = RUN_SECONDS) -> Row:
        """The run's row once it has ended."""
        return wait_for(  # type: ignore[no-any-return]
            lambda: self.rows("SELECT * FROM runs_run WHERE id = %s AND ended_at IS NOT NULL", run),
            seconds=seconds,
            why=f"the end of run {run} ({[(s['step'], s['status']) for s in self.steps(run)]})",
        )[0]

    def await_event(self, run: int, kind: str, *, step: str, seconds: float = 40.0) -> Row:
        """The first event of that type of the step."""
        return wait_for(  # type: ignore[no-any-return]
            lambda: [e for e in self.events(run, kind) if e["data"].get("step") == step],
            seconds=seconds,
            why=f"event {kind} of {step}",
        )[0]

    def journal(self, execution: int) -> bytes:
        return (self.installation.executions / str(execution) / "journal.ndjson").read_bytes()

    def redis(self, *command: str) -> str:
        """Speak to the stack's Redis."""
        import redis

        with redis.Redis.from_url(self.installation.redis_url) as client:
            return str(client.execute_command(*command))


def docker(*arguments: str, seconds: float = 60.0) -> str:
    """What the command `docker` printed."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, timeout=seconds, check=True)
    return done.stdout
