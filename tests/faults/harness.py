"""What every fault test needs: a stack with short leases that is watched from outside, and scripts that keep a diary.

The watch is threefold, and none of it can be rewritten by what is watched: a trigger copies every change of a status,
token or offset into the table `audit`; a thread keeps a hard link to each journal and diary, so that they outlive the
removal of their execution; and each script writes down what it does in a side file of its own.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import threading
import urllib.request
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import yaml

from djinn.core.faults import FOLDER, VARIABLE
from runtime_image.djinn_runtime.protocol import JOURNAL_NAME, SCRATCH_NAME
from tests.stack.live import Live, wait_for

SIDE_NAME = f"{SCRATCH_NAME}/side.ndjson"
KEPT = (JOURNAL_NAME, SIDE_NAME)
WATCH_SECONDS = 0.1
CANARY = "canary-7f3a91c25e"
"""In the environment of every watched stack as a provider's key: it must never turn up anywhere else."""

AUDIT = """
CREATE TABLE IF NOT EXISTS audit (
    id bigserial PRIMARY KEY, at timestamptz NOT NULL DEFAULT clock_timestamp(), kind text NOT NULL,
    row_id bigint NOT NULL,
    old_status text, new_status text, old_token bigint, new_token bigint, owner text, writer text, is_guarded boolean
);
CREATE OR REPLACE FUNCTION audit_status() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit (kind, row_id, old_status, new_status) VALUES (TG_TABLE_NAME, NEW.id, OLD.status, NEW.status);
    RETURN NULL;
END $$;
CREATE OR REPLACE FUNCTION audit_execution() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO audit (kind, row_id, old_status, new_status, old_token, new_token, owner, writer, is_guarded)
    VALUES (TG_TABLE_NAME, NEW.id, OLD.status, NEW.status, OLD.lease_token, NEW.lease_token, NEW.lease_owner,
            current_setting('application_name'),
            (OLD.status, OLD.outcome, OLD.journal_offset, OLD.journal_count, OLD.image_id, OLD.base_snapshot,
             OLD.result_snapshot)
            IS DISTINCT FROM
            (NEW.status, NEW.outcome, NEW.journal_offset, NEW.journal_count, NEW.image_id, NEW.base_snapshot,
             NEW.result_snapshot));
    RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER audit AFTER UPDATE OF status ON runs_run
    FOR EACH ROW WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION audit_status();
CREATE OR REPLACE TRIGGER audit AFTER UPDATE OF status ON runs_steprun
    FOR EACH ROW WHEN (OLD.status IS DISTINCT FROM NEW.status) EXECUTE FUNCTION audit_status();
CREATE OR REPLACE TRIGGER audit AFTER UPDATE ON executions_execution FOR EACH ROW EXECUTE FUNCTION audit_execution();
"""


class Watched(Live):
    """A stack with short leases, a provider's key that must not leak, and a watch over everything that it does."""

    def __init__(
        self,
        *,
        image: str = "none",
        runner: str = "process",
        faults: str = "",
        lease_seconds: float = 2.0,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.runner = runner
        self.intents = 0
        """How many runs somebody wanted."""
        ours = {
            "DJINN_RUNNER": runner,
            "DJINN_LEASE_SECONDS": str(lease_seconds),
            "DJINN_LONGEST_PAUSE_SECONDS": "1",
            "DJINN_IDLE_TRANSACTION_SECONDS": "4",
            "OPENAI_API_KEY": CANARY,
            VARIABLE: faults,
        }
        super().__init__(image=image, environment={**ours, **(environment or {})})
        self.archive = self.home / "archive"
        self._counting = threading.Lock()
        self._is_over = threading.Event()
        self._watch = threading.Thread(target=self._watch_on, name="watch", daemon=True)

    @property
    def key(self) -> str:
        """The administrator's bearer token, once the API was called."""
        return self._key

    @property
    def keep_seconds(self) -> float:
        """How long an ended container is kept."""
        return float(self._environment.get("DJINN_KEEP_CONTAINER_SECONDS", "600"))

    def environment(self) -> dict[str, str]:
        """What the stack's own processes get, but for the faults."""
        return {name: value for name, value in self._environment.items() if name != VARIABLE}

    @property
    def installation_name(self) -> str:
        """By which the stack's containers are labelled."""
        return self._environment["DJINN_INSTALLATION"]

    def up(self) -> None:
        """Start the stack, and the watch with it."""
        super().up()
        audit(self.installation.database_url)
        if not self._watch.is_alive():
            self._watch.start()

    def clean(self) -> None:
        self._is_over.set()
        if self._watch.is_alive():
            self._watch.join(10)
        super().clean()

    # --- people who do not give up ------------------------------------------------------------------------------------
    def intend(self, pipeline: str, *, seconds: float = 60.0) -> int:
        """Start a run exactly once, however often the web process dies meanwhile: one key, asked until it answers."""
        body = {"pipeline": pipeline, "inputs": {}}
        with self._counting:
            self.intents += 1
            headers = {"Idempotency-Key": f"intent {self.intents}"}
        return int(self._insist("runs/", body, (201,), headers, seconds)["id"])

    def cancel(self, run: int, *, seconds: float = 60.0) -> None:
        """Cancel the run, asked until it is acknowledged, or has ended."""
        self._insist(f"runs/{run}/cancel/", None, (202, 409), {}, seconds)

    def _insist(self, path: str, body: Any, wanted: tuple[int, ...], headers: dict[str, str], seconds: float) -> Any:
        def asked() -> Any:
            try:
                status, answer = self.call("POST", path, body, headers=headers)
            except (OSError, http.client.HTTPException, ValueError):
                return None
            return answer if status in wanted else None

        return wait_for(asked, seconds=seconds, why=f"an answer to {path}")

    # --- faults -------------------------------------------------------------------------------------------------------
    def hits(self) -> dict[str, list[str]]:
        """What happened at each hit of each crash point that has a rule, in their order; "-" for nothing."""
        files = sorted((self.installation.home / FOLDER).glob("*"))
        return {file.name: [line.split()[2] for line in file.read_text().splitlines()] for file in files}

    def wake(self, pid: int) -> None:
        """Send SIGCONT to a process that was stopped."""
        _continue(pid)

    # --- the watch ----------------------------------------------------------------------------------------------------
    def _watch_on(self) -> None:
        stopped: set[str] = set()
        while not self._is_over.wait(WATCH_SECONDS):
            self._keep_files()
            self._wake_stopped(stopped)

    def _keep_files(self) -> None:
        """A hard link for every journal and diary: the file grows on in both places, and stays in ours."""
        for directory in self.installation.executions.glob("[0-9]*"):
            for name in KEPT:
                kept = self.archive / directory.name / name
                if not kept.exists() and (directory / name).is_file():
                    kept.parent.mkdir(parents=True, exist_ok=True)
                    with contextlib.suppress(OSError):  # it was removed this very moment: what was kept is kept
                        os.link(directory / name, kept)

    def _wake_stopped(self, done: set[str]) -> None:
        """Send SIGCONT to each process that a fault has stopped, once its time is over."""
        for file in (self.installation.home / FOLDER).glob("*"):
            for line in file.read_text().splitlines():
                number, pid, action = line.split()
                key = f"{file.name} {number}"
                if action.startswith("stop:") and key not in done:
                    done.add(key)
                    timer = threading.Timer(float(action[5:]), _continue, args=(int(pid),))
                    timer.daemon = True
                    timer.start()


def _continue(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it was killed meanwhile
        os.kill(pid, signal.SIGCONT)


class Follower:
    """Somebody who follows a run's log by server-sent events, and comes back behind the last one when cut off."""

    def __init__(self, live: Watched, run: int) -> None:
        self.seqs: list[int] = []
        self.is_over = threading.Event()
        self._live, self._run = live, run
        self._thread = threading.Thread(target=self._follow_on, name=f"follower {run}", daemon=True)
        self._thread.start()

    def stop(self) -> list[int]:
        """What was seen, in the order in which it came."""
        self.is_over.set()
        self._thread.join(10)
        return self.seqs

    def _follow_on(self) -> None:
        while not self.is_over.wait(0.1):
            with contextlib.suppress(OSError, http.client.HTTPException):  # cut off: the next round goes on behind it
                self._follow()

    def _follow(self) -> None:
        headers = {"Authorization": f"Bearer {self._live.key}", "Accept": "text/event-stream"}
        if self.seqs:
            headers["Last-Event-ID"] = str(self.seqs[-1])
        url = f"{self._live.url}/api/v1/runs/{self._run}/events/"
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=3) as answer:
            for line in answer:
                if self.is_over.is_set():
                    return
                value = json.loads(line.removeprefix(b"data: ")) if line.startswith(b"data: {") else {}
                if "seq" in value:
                    self.seqs.append(value["seq"])


def audit(database_url: str) -> None:
    """Make the table `audit` and the triggers that feed it, unless they are there."""
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute(AUDIT)  # type: ignore[arg-type]


@contextlib.contextmanager
def watched(**options: Any) -> Iterator[Watched]:
    """A running watched stack; nothing of it is left afterwards."""
    stack = Watched(**options)
    try:
        stack.up()
        yield stack
    finally:
        stack.clean()


# --- what the stack works on ------------------------------------------------------------------------------------------
def diary(*, things: int = 3, seconds: float = 0.1, then: str = "") -> str:
    """A shell script that does `things`, and writes each into its side file and to its output.

    The side file lies beside `$DJINN_OUTPUT`, in the execution's scratch: on the host it is
    `scratch/side.ndjson` in its directory.
    """
    return f"""\
side="$(dirname "$DJINN_OUTPUT")/{Path(SIDE_NAME).name}"
note() {{ printf '{{"what": "%s", "n": %s, "ms": %s}}\\n' "$1" "$2" "$(date +%s%3N)" >> "$side"; }}
note start 0
n=0
while [ $n -lt {things} ]; do n=$((n + 1)); note did $n; echo "did $n"; sleep {seconds}; done
{then}
note end $n
"""


def step(name: str, *, things: int = 3, seconds: float = 0.1, then: str = "", **keys: Any) -> dict[str, Any]:
    """A step whose script keeps a diary."""
    return {"id": name, "run": diary(things=things, seconds=seconds, then=then), **keys}


def pipeline(*steps: dict[str, Any], **top: Any) -> str:
    """The text of a pipeline's file. Its steps are tried twice more, at once."""
    top = {"name": "Faults", "defaults": {"retries": {"max": 2, "backoff": 0}}, **top}
    return yaml.safe_dump({**top, "steps": list(steps)}, sort_keys=False)


def linear(steps: int = 3, **keys: Any) -> str:
    """Steps in a row."""
    return pipeline(*(step(f"S{number}", **keys) for number in range(1, steps + 1)))


def revisiting(visits: int = 3, **keys: Any) -> str:
    """Two steps, the second of which sends the token back to the first until it has been visited often enough."""
    count = 'c="$(cat count 2>/dev/null || echo 0)"; c=$((c + 1)); echo $c > count\n'
    verdict = f'if [ $c -ge {visits} ]; then v=good; else v=again; fi; echo "VERDICT=$v" >> "$DJINN_OUTPUT"'
    back: dict[str, Any] = {"again": {"goto": "MAKE"}, "good": {}}
    review = step("REVIEW", then=count + verdict, outputs=["VERDICT"], onResult=back, **keys)
    return pipeline(step("MAKE", onComplete="REVIEW", **keys), review)


def fanning(**keys: Any) -> str:
    """A graph: one step for each of three items, two at once, and one step behind them all."""
    fan = step("FAN", foreach={"over": "[1, 2, 3]", "parallel": 2}, then="echo x > made-{{ current_item }}", **keys)
    return pipeline(fan, step("JOIN", needs=["FAN"], then="cat made-1 made-2 made-3", **keys))


def using(other: str, **keys: Any) -> str:
    """A step, and another pipeline behind it."""
    return pipeline(step("FIRST", **keys), {"id": "OTHER", "uses": other})


def talking(turns: int = 3) -> tuple[str, str]:
    """A pipeline of one agent, and the script `talk` that plays its model in as many turns."""
    calls = [{"bash": {"command": f"echo did {turn}"}} for turn in range(1, turns)]
    work = [{"say": "The work goes on as it should.", "call": call} for call in calls]
    last = {"say": "Done.", "call": {"complete": {"summary": "Done.", "outputs": {"RESULT": "done"}}}}
    script = yaml.safe_dump({"steps": {"TALK": [[*work, last]]}})
    talk = {"id": "TALK", "agent": "analyst", "input": "Talk.", "model": "scripted/talk", "outputs": ["RESULT"]}
    return pipeline(talk), script


def quiet(live: Live, runs: Iterable[int], *, seconds: float = 90.0) -> None:
    """Wait until the runs have ended and everything that they have left is at rest; fails the test when it is not."""
    wanted = list(runs)
    open_runs = "SELECT id FROM runs_run WHERE id = ANY(%s) AND ended_at IS NULL"
    wait_for(lambda: not live.rows(open_runs, wanted), seconds=seconds, why=f"the end of all of {wanted}")
    open_executions = "SELECT id FROM executions_execution WHERE ended_at IS NULL"
    wait_for(lambda: not live.rows(open_executions), seconds=30, why="the end of all executions")


def marks(path: Path) -> list[dict[str, Any]]:
    """What a side file tells: `what`, `n` and `ms` of each line; a last line that a full disk has torn is left out."""
    lines = path.read_text().split("\n")[:-1] if path.is_file() else []
    return [json.loads(line) for line in lines]
