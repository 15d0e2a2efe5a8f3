"""What tests arrange: pipelines whose steps the stub runner plays, runs, executions, and workers without processes."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import redis
import yaml
from django.conf import settings
from django.db import transaction
from django.utils import timezone

from djinn.accounts.models import Role, User
from djinn.celery import app
from djinn.events.log import NewEvent, append, open_stream, read_after
from djinn.executions import lease as leases
from djinn.executions.lease import Lease
from djinn.executions.models import Execution
from djinn.executions.places import execution_directory
from djinn.runs import engine
from djinn.runs.models import Run, StepRun
from djinn.runs.services import start_run
from djinn.runs.states import STEP_OPEN
from runtime_image.djinn_runtime.protocol import JOURNAL_NAME, Record, encode_record

HOST = "here"
JSON = Any


# --- People -----------------------------------------------------------------------------------------------------------
def make_user(name: str = "olga", role: Role = Role.OPERATOR, **fields: Any) -> User:
    """A person who may log in with the password `correct horse`."""
    return User.objects.create_user(name, password="correct horse", role=role, **fields)


# --- Pipelines --------------------------------------------------------------------------------------------------------
def succeeded(summary: str = "", **outputs: JSON) -> dict[str, JSON]:
    """Data of a record `finished`."""
    return {"status": "succeeded", "outputs": outputs, "summary": summary, "error": None, "exit_code": 0}


def failed(reason: str = "error", message: str = "it broke") -> dict[str, JSON]:
    """Data of a record `finished`."""
    error = {"reason": reason, "message": message}
    return {"status": "failed", "outputs": {}, "summary": "", "error": error, "exit_code": 1}


def played(**stub: JSON) -> str:
    """A script that the stub runner plays: `records`, `finished`, `exit_code`, `hold`; see `djinn/runner/stub.py`."""
    return json.dumps({"stub": stub})


def step(name: str, script: str = "exit 0", **keys: JSON) -> dict[str, JSON]:
    """A step that runs a script; one that is not for the stub succeeds with each of its outputs "ok"."""
    return {"id": name, "run": script, **keys}


def write_pipeline(*steps: dict[str, JSON], name: str = "work", **top: JSON) -> Path:
    """A file in the folder of pipelines, named like the pipeline. Nothing is tried again unless it says so."""
    path: Path = settings.PIPELINES_DIRECTORY / f"{name}.yaml"
    top = {"name": name, "defaults": {"retries": {"max": 0}}, **top}
    path.write_text(yaml.safe_dump({**top, "steps": list(steps)}, sort_keys=False))
    for model in (settings.DEFAULT_MODEL, *(step.get("model") for step in steps)):
        _write_script(str(model or ""))
    return path


def _write_script(model: str) -> None:
    """A script without turns for a scripted model, which has to be there for a run to start."""
    provider, _, name = model.partition("/")
    if provider == "scripted":
        (settings.PIPELINES_DIRECTORY / "scripts").mkdir(exist_ok=True)
        (settings.PIPELINES_DIRECTORY / "scripts" / f"{name}.yaml").write_text("steps: {}\n")


def begin(*steps: dict[str, JSON], **top: JSON) -> Run:
    """A run of a pipeline with these steps, queued."""
    write_pipeline(*steps, **top)
    return start_run(pipeline_id="work", inputs={})


# --- Workers ----------------------------------------------------------------------------------------------------------
def work(run: Run, *, most_rounds: int = 200) -> Run:
    """Do what workers do, by calling their tasks in turn, until the run has ended or nothing moves; the run then."""
    for _ in range(most_rounds):
        before = state_of(run)
        engine.advance_run(run.pk)
        for number in open_steps(run):
            engine.prepare_step(number)
            engine.execute_step(number)
            engine.settle_step(number)
        if state_of(run) == before:
            run.refresh_from_db()
            return run
    raise AssertionError(f"run {run.pk} still moves after {most_rounds} rounds: {history(run)}")


def state_of(run: Run) -> list[Any]:
    """Everything of a run that moves."""
    rows = run.step_runs.order_by("number").values_list("pk", "status", "crashes", "execution__status", "execution_id")
    return [Run.objects.values_list("status", flat=True).get(pk=run.pk), *rows]


def open_steps(run: Run) -> list[int]:
    return list(run.step_runs.filter(status__in=STEP_OPEN).order_by("number").values_list("pk", flat=True))


def prepared(run: Run) -> StepRun:
    """The run's open step run, with its execution."""
    engine.advance_run(run.pk)
    (number,) = open_steps(run)
    engine.prepare_step(number)
    return StepRun.objects.select_related("run", "execution").get(pk=number)


def history(run: Run) -> list[tuple[Any, ...]]:
    """The run's step runs: step, visit, attempt, status, reason."""
    return list(run.step_runs.order_by("number").values_list("step", "visit", "attempt", "status", "reason"))


def told(run: Run, *types: str) -> list[tuple[str, dict[str, Any]]]:
    """The run's log: type and data of each event, only of some types when they are named."""
    events = read_after(run.stream, 0, limit=100_000)
    return [(event.type, dict(event.data)) for event in events if not types or event.type in types]


def empty_queues(*names: str) -> None:
    """Forget the messages that other tests have left in queues: the sweep rings less when there are many."""
    with redis.Redis.from_url(settings.REDIS_URL) as client:
        client.delete(*map(queue_key, ("control", "agents", *names)))


@contextmanager
def mute_broker() -> Iterator[list[socket.socket]]:
    """A broker that accepts connections and never answers, instead of Redis; the connections that it has accepted."""
    accepted: list[socket.socket] = []
    options, present = app.conf.broker_transport_options, app.conf.broker_write_url
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            with suppress(OSError):  # it was closed
                while True:
                    accepted.append(server.accept()[0])

        threading.Thread(target=accept, daemon=True).start()
        app.conf.broker_write_url = f"redis://127.0.0.1:{server.getsockname()[1]}/0"
        app.conf.broker_transport_options = {**options, "socket_timeout": 0.3}
        try:
            yield accepted
        finally:
            app.conf.broker_write_url, app.conf.broker_transport_options = present, options
            server.shutdown(socket.SHUT_RDWR)
            for connection in accepted:
                connection.close()


def queue_key(name: str) -> str:
    """Where the broker keeps a queue."""
    return f"{settings.CELERY_BROKER_TRANSPORT_OPTIONS['global_keyprefix']}{name}"


# --- Executions -------------------------------------------------------------------------------------------------------
def make_execution(**columns: Any) -> Execution:
    """An execution of its own, STARTING and unclaimed, with a stream to append to."""
    columns = {"stream": "test", "tags": {"step": "WORK"}, "image": "none", "timeout_seconds": 60, **columns}
    open_stream(columns["stream"])
    execution = Execution.objects.create(**columns)
    execution.refresh_from_db()
    return execution


def claimed(execution: Execution, *, owner: str = "worker", host: str = HOST) -> Lease:
    """The execution's lease, which must be free."""
    lease = leases.claim(execution.pk, owner=owner, host=host)
    assert lease is not None
    return lease


def expire(execution: Execution) -> None:
    """Let the lease have run out a while ago."""
    past = timezone.now() - timedelta(hours=1)
    Execution.objects.filter(pk=execution.pk).update(lease_expires_at=past)


def journal(execution: Execution, *parts: bytes | tuple[str, dict[str, JSON]], start: int = 1) -> Path:
    """Append to the execution's journal: raw bytes, or records (type, data) that are numbered from `start`."""
    path = execution_directory(execution) / JOURNAL_NAME
    path.parent.mkdir(parents=True, exist_ok=True)
    number = start
    with path.open("ab") as file:
        for part in parts:
            if isinstance(part, bytes):
                file.write(part)
            else:
                file.write(encode_record(Record(number, 0, *part)))
                number += 1
    return path


def tell(stream: str, *events: NewEvent) -> int:
    """Append events; the last one's number."""
    with transaction.atomic():
        open_stream(stream)
        return append(stream, list(events))
