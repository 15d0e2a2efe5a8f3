"""One execution from launch to end under one lease, and what is kept of it."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.db.models import DurationField, Value

from djinn.core.installation.paths import Installation
from djinn.events.log import read_after
from djinn.executions import supervise
from djinn.executions.conclude import conclude
from djinn.executions.host import collect, tend_host
from djinn.executions.launch import launch, specification
from djinn.executions.lease import DatabaseClock
from djinn.executions.models import Execution
from djinn.executions.places import door_of, execution_directory, present_runner, workspace_of
from djinn.executions.relay import Relay
from djinn.executions.services import request_stop
from djinn.executions.states import Reason
from djinn.executions.supervise import see_through
from djinn.runner.base import ContainerSpec, ContainerState, Phase, RunnerUnavailable, StartRefused
from djinn.runner.files import write_json
from djinn.runner.stub import StubRunner
from tests.make import claimed, expire, failed, journal, make_execution, played, succeeded

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("home")]


def order(**stub: Any) -> dict[str, Any]:
    return {"order": {"mode": "command", "script": played(**stub), "outputs": []}}


def wait_for(what: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 20
    while not what():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def seen_through(execution: Execution) -> Execution:
    """The execution after a worker has claimed it and seen it through."""
    assert see_through(claimed(execution), present_runner())
    execution.refresh_from_db()
    return execution


def in_background(execution: Execution) -> threading.Thread:
    """A worker that sees the execution through in a thread of its own."""
    lease = claimed(execution)

    def work() -> None:
        see_through(lease, present_runner())
        connection.close()

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def is_running(execution: Execution) -> bool:
    return present_runner().inspect(execution.key).phase is Phase.RUNNING


def test_an_execution_is_launched_relayed_and_concluded() -> None:
    execution = seen_through(make_execution(**order(records=[{"type": "text", "data": {"text": "x"}}])))
    assert (execution.status, execution.reason, execution.exit_code) == ("exited", "", 0)
    assert [event.type for event in read_after("test", 0)] == ["ready", "text", "finished"]


def test_a_failure_is_kept_with_its_reason_and_message() -> None:
    execution = seen_through(make_execution(**order(finished=failed("turns", "sixty turns"))))
    assert (execution.status, execution.reason, execution.message) == ("exited", "turns", "sixty turns")


def test_the_brief_is_for_the_container_alone_and_holds_what_it_needs() -> None:
    execution = seen_through(make_execution(**order()))
    path = execution_directory(execution) / "brief.json"
    assert path.stat().st_mode & 0o777 == 0o400
    brief = json.loads(path.read_text())
    assert (brief["execution"], brief["mode"], brief["deadline_seconds"]) == (execution.key, "command", 60)


def test_the_way_to_the_gateway_is_open_while_the_execution_runs_and_no_longer() -> None:
    execution = make_execution(**order(hold=True))
    worker = in_background(execution)
    wait_for(lambda: is_running(execution))
    door = door_of(execution)
    assert (door.is_dir(), specification(execution).gateway_directory) == (True, door)
    request_stop(execution_id=execution.pk, reason=Reason.CANCELLED)
    worker.join(20)
    assert not door.exists()


def test_the_workspace_is_kept_as_a_snapshot_with_its_diff() -> None:
    execution = make_execution(workspace="run-1", **order(hold=True))
    worker = in_background(execution)
    wait_for(lambda: is_running(execution))
    tree = workspace_of(execution).tree
    (tree / "new.txt").write_text("line\n")
    request_stop(execution_id=execution.pk, reason=Reason.TIMEOUT)
    worker.join(20)
    execution.refresh_from_db()
    assert execution.status == "killed"
    assert "+line" in execution.diff
    assert [change["path"] for change in execution.changes] == ["new.txt"]


def test_a_file_with_nul_far_inside_or_a_name_that_is_no_text_is_kept() -> None:
    execution = make_execution(workspace="run-1", **order(hold=True))
    worker = in_background(execution)
    wait_for(lambda: is_running(execution))
    tree = workspace_of(execution).tree
    (tree / "late.txt").write_bytes(b"x\n" * 8000 + b"a\0b\n")
    with open(bytes(tree) + b"/\xff\xfe.txt", "wb") as file:
        file.write(b"\xff\n")
    request_stop(execution_id=execution.pk, reason=Reason.CANCELLED)
    worker.join(20)
    execution.refresh_from_db()
    assert (execution.status, execution.reason) == ("killed", "cancelled")
    assert len(execution.changes) == 2


def test_a_later_execution_begins_with_what_the_one_before_it_left() -> None:
    first = seen_through(make_execution(workspace="run-1", **order()))
    tree = workspace_of(first).tree
    failing = make_execution(workspace="run-1", base_snapshot=first.result_snapshot, **order(hold=True))
    worker = in_background(failing)
    wait_for(lambda: is_running(failing))
    (tree / "leftover.txt").write_text("of a failed try")
    request_stop(execution_id=failing.pk, reason=Reason.CANCELLED)
    worker.join(20)
    second = seen_through(make_execution(workspace="run-1", base_snapshot=first.result_snapshot, **order()))
    assert not (tree / "leftover.txt").exists()
    assert second.origin_snapshot == first.origin_snapshot


def test_a_stop_that_was_asked_for_before_the_launch_starts_no_container() -> None:
    execution = make_execution(**order())
    request_stop(execution_id=execution.pk, reason=Reason.CANCELLED)
    seen_through(execution)
    assert (execution.status, execution.reason) == ("killed", "cancelled")
    assert present_runner().inspect(execution.key).phase is Phase.ABSENT


def test_a_container_past_its_deadline_is_stopped(settings: Any) -> None:
    execution = make_execution(timeout_seconds=1, **order(hold=True))
    with connection.cursor() as cursor:
        cursor.execute("UPDATE executions_execution SET created_at = created_at - interval '1 hour'")
    seen_through(execution)
    assert (execution.status, execution.reason) == ("killed", "timeout")
    assert not is_running(execution)


def test_a_stop_is_heard_while_the_journal_has_more_than_can_be_shipped_at_once(home: Installation) -> None:
    shipped_at_stop = []

    class Watched(StubRunner):
        def start(self, spec: ContainerSpec) -> None:
            super().start(spec)
            request_stop(execution_id=int(spec.execution), reason=Reason.CANCELLED)
            lease.stop_reason = str(Reason.CANCELLED)  # what the keeper hears at its next renewal

        def stop(self, execution: str, grace_seconds: float) -> None:
            shipped_at_stop.append(Execution.objects.get(pk=int(execution)).journal_count)
            super().stop(execution, grace_seconds)

    flood = [{"type": "log", "data": {"text": "x"}}] * 8000
    execution = make_execution(**order(records=flood, hold=True))
    lease = claimed(execution)
    assert see_through(lease, Watched(home.executions / "stub"))
    execution.refresh_from_db()
    assert (execution.status, execution.reason, execution.journal_count) == ("killed", "cancelled", 8001)
    assert shipped_at_stop[0] < 8001


def test_what_takes_more_of_the_disk_than_its_limit_is_stopped_and_its_tree_is_given_back() -> None:
    execution = make_execution(workspace="run-1", resources={"disk_mb": 5}, **order(hold=True))
    worker = in_background(execution)
    wait_for(lambda: is_running(execution))
    tree = workspace_of(execution).tree
    (tree / "big").write_bytes(os.urandom(3_000_000))
    (execution_directory(execution) / "big").write_bytes(os.urandom(3_000_000))
    worker.join(30)
    execution.refresh_from_db()
    assert (execution.status, execution.reason, execution.result_snapshot) == ("killed", "disk", "")
    assert "5 MiB" in execution.message
    assert (is_running(execution), tree.exists()) == (False, False)
    again = seen_through(make_execution(workspace="run-1", base_snapshot=execution.base_snapshot, **order()))
    assert (again.status, tree.is_dir(), (tree / "big").exists()) == ("exited", True, False)


def test_without_a_limit_of_its_own_a_step_has_the_installations(settings: Any) -> None:
    settings.DISK_BYTES = 5_000_000
    execution = make_execution(**order(hold=True))
    worker = in_background(execution)
    wait_for(lambda: is_running(execution))
    (execution_directory(execution) / "big").write_bytes(os.urandom(6_000_000))
    worker.join(30)
    execution.refresh_from_db()
    assert (execution.status, execution.reason) == ("killed", "disk")


def test_a_step_that_succeeds_with_more_on_the_disk_than_its_limit_has_failed(settings: Any) -> None:
    settings.DISK_FILES = 2000
    execution = make_execution(workspace="run-1", **order(hold=True))
    worker = in_background(execution)
    wait_for(lambda: is_running(execution))
    for number in range(2500):
        (workspace_of(execution).tree / str(number)).touch()
    journal(execution, ("finished", succeeded()), start=2)
    worker.join(30)
    execution.refresh_from_db()
    assert (execution.status, execution.reason) == ("killed", "disk")
    assert "2,000 files" in execution.message


def test_what_an_earlier_worker_has_stopped_for_its_use_of_the_disk_ends_as_that() -> None:
    execution = make_execution(**order(hold=True))
    worker = in_background(execution)
    wait_for(lambda: read_after("test", 0))
    request_stop(execution_id=execution.pk, reason=Reason.DISK)
    worker.join(20)
    execution.refresh_from_db()
    assert (execution.status, execution.reason) == ("killed", "disk")
    assert "Disk limit reached" in execution.message


def test_nothing_is_started_while_the_hosts_disk_has_less_than_its_reserve(home: Installation, settings: Any) -> None:
    if os.getuid() != 0:
        pytest.skip("needs to mount a tmpfs")
    place = str(home.executions)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=20m", "tmpfs", place], check=True, timeout=10)
    try:
        (home.executions / "filler").write_bytes(bytes(19 * 1024**2 + 500_000))
        execution = make_execution(**order())
        worker = in_background(execution)
        wait_for(lambda: [event for event in read_after("test", 0) if event.type == "notice"])
        assert not is_running(execution)
        (home.executions / "filler").unlink()
        worker.join(20)
        execution.refresh_from_db()
        assert (execution.status, execution.reason) == ("exited", "")
    finally:
        subprocess.run(["umount", "--lazy", place], check=True, timeout=10)


def test_an_execution_whose_container_vanished_is_lost() -> None:
    execution = make_execution(**order(hold=True))
    worker = in_background(execution)
    wait_for(lambda: is_running(execution))
    present_runner().remove(execution.key)
    worker.join(20)
    execution.refresh_from_db()
    assert (execution.status, execution.reason) == ("lost", "lost")


def test_a_journal_that_shrinks_ends_the_execution_as_rejected() -> None:
    execution = make_execution(**order(hold=True))
    worker = in_background(execution)
    wait_for(lambda: read_after("test", 0))
    (execution_directory(execution) / "journal.ndjson").write_bytes(b"")
    worker.join(20)
    execution.refresh_from_db()
    assert execution.reason == "rejected"
    assert not is_running(execution)


def test_a_worker_that_shuts_down_leaves_its_container_running_for_the_next(home: Installation) -> None:
    execution = make_execution(**order(hold=True))
    worker = in_background(execution)
    wait_for(lambda: read_after("test", 0))
    supervise.stopping.set()
    try:
        worker.join(20)
    finally:
        supervise.stopping.clear()
    execution.refresh_from_db()
    assert (execution.status, is_running(execution)) == ("running", True)
    journal(execution, ("finished", succeeded()), start=2)
    write_json(home.executions / "stub" / execution.key / "exit.json", 0)
    seen_through(execution)
    assert (execution.status, execution.lease_token) == ("exited", 2)
    assert [event.type for event in read_after("test", 0)] == ["ready", "finished"]


def test_a_fenced_worker_leaves_the_container_and_the_row_to_the_other() -> None:
    execution = make_execution(**order(hold=True))
    worker = in_background(execution)
    wait_for(lambda: read_after("test", 0))
    expire(execution)
    other = claimed(execution)
    worker.join(20)
    execution.refresh_from_db()
    assert (execution.status, execution.lease_token) == ("running", other.token)
    assert is_running(execution)


class HalfMade(StubRunner):
    """An engine that holds a container and refuses to start it, before or after it ran."""

    def __init__(self, root: Path, *, has_run: bool) -> None:
        super().__init__(root)
        self._has_run = has_run

    def start(self, spec: ContainerSpec) -> None:
        if self._has_run:
            super().start(spec)
        raise StartRefused("3 starts failed: task abc: already exists")


@pytest.mark.parametrize(("has_run", "expected"), [(True, ("exited", "")), (False, ("lost", "lost"))])
def test_a_container_that_cannot_be_started_is_left_to_its_journal_when_it_has_one(
    home: Installation, has_run: bool, expected: tuple[str, str]
) -> None:
    execution = make_execution(**order())
    assert see_through(claimed(execution), HalfMade(home.executions / "stub", has_run=has_run))
    execution.refresh_from_db()
    assert (execution.status, execution.reason) == expected


def test_the_files_of_a_container_that_may_run_on_are_not_looked_at() -> None:
    """Git could be led out of a tree that somebody changes between its two looks."""
    execution = make_execution(workspace="run-1", **order(hold=True))
    lease = claimed(execution)
    launch(execution, lease, present_runner())
    journal(execution, ("finished", succeeded()), start=2)
    state = ContainerState(Phase.RUNNING)
    conclude(execution, lease, Relay(execution, lease), state, stop_reason="", failure=None)
    execution.refresh_from_db()
    assert (execution.status, execution.reason, execution.result_snapshot) == ("lost", "runner", "")


class Away:
    """An engine that answers nothing."""

    name = "away"
    isolates = True

    def inspect(self, execution: str) -> Any:
        raise RunnerUnavailable("nobody listens")

    stop = remove = resolve_image = inspect

    def start(self, spec: ContainerSpec) -> None:
        raise RunnerUnavailable("nobody listens")


def test_a_cancel_is_heard_while_the_engine_is_away() -> None:
    execution = make_execution(**order())
    lease = claimed(execution)
    worker = threading.Thread(target=lambda: (see_through(lease, Away()), connection.close()))  # type: ignore[arg-type]
    worker.start()
    wait_for(lambda: [event for event in read_after("test", 0) if event.type == "notice"])
    request_stop(execution_id=execution.pk, reason=Reason.CANCELLED)
    worker.join(20)
    assert not worker.is_alive()
    execution.refresh_from_db()
    assert (execution.status, execution.reason) == ("killed", "cancelled")


# --- What a worker does for its host ----------------------------------------------------------------------------------
def running_alone(**columns: Any) -> Execution:
    """An execution whose container runs and whose worker is dead."""
    execution = make_execution(**order(hold=True), **columns)
    worker = in_background(execution)
    wait_for(lambda: read_after("test", 0))
    supervise.stopping.set()
    try:
        worker.join(20)
    finally:
        supervise.stopping.clear()
    return execution


def test_a_container_whose_worker_is_dead_is_left_running() -> None:
    execution = running_alone()
    tend_host()
    assert is_running(execution)


def test_a_container_that_shall_stop_and_has_no_worker_is_stopped() -> None:
    execution = running_alone()
    request_stop(execution_id=execution.pk, reason=Reason.CANCELLED)
    tend_host()
    assert not is_running(execution)


def test_a_container_that_shall_stop_is_left_to_a_worker_that_may_still_hear_of_it() -> None:
    execution = running_alone()
    claimed(execution)
    request_stop(execution_id=execution.pk, reason=Reason.CANCELLED)
    tend_host()
    assert is_running(execution)


def test_a_container_that_shall_stop_does_not_wait_for_the_lease_of_a_dead_worker() -> None:
    execution = running_alone()
    claimed(execution)
    request_stop(execution_id=execution.pk, reason=Reason.CANCELLED)
    earlier = DatabaseClock() - Value(timedelta(seconds=2), output_field=DurationField())
    Execution.objects.filter(pk=execution.pk).update(stop_requested_at=earlier)
    tend_host()
    assert not is_running(execution)


def test_a_cancel_that_somebody_else_applied_first_is_no_loss() -> None:
    execution = make_execution(**order(hold=True))
    worker = in_background(execution)
    wait_for(lambda: read_after("test", 0))
    request_stop(execution_id=execution.pk, reason=Reason.CANCELLED)
    present_runner().stop(execution.key, 0)
    journal(execution, ("finished", failed("cancelled")), start=2)
    worker.join(20)
    execution.refresh_from_db()
    assert (execution.status, execution.reason) == ("killed", "cancelled")


def test_a_container_whose_execution_has_ended_is_stopped() -> None:
    execution = running_alone()
    Execution.objects.filter(pk=execution.pk).update(status="lost", ended_at=DatabaseClock())
    tend_host()
    assert not is_running(execution)


def test_a_container_that_nobody_knows_is_stopped() -> None:
    execution = running_alone()
    Execution.objects.filter(pk=execution.pk).delete()
    tend_host()
    assert not is_running(execution)


@pytest.fixture
def ended(settings: Any) -> Execution:
    settings.HOST_NAME = "here"
    return seen_through(make_execution(**order()))


def test_what_ended_just_now_is_kept(ended: Execution) -> None:
    assert collect(present_runner()) == 0
    assert execution_directory(ended).is_dir()


def test_what_ended_long_ago_is_removed_once(ended: Execution, settings: Any) -> None:
    settings.KEEP_CONTAINER_SECONDS = 0.0
    assert collect(present_runner()) == 1
    assert not execution_directory(ended).exists()
    assert present_runner().inspect(ended.key).phase is Phase.ABSENT
    assert collect(present_runner()) == 0


def test_what_has_filled_the_disk_is_removed_sooner(ended: Execution, settings: Any) -> None:
    Execution.objects.filter(pk=ended.pk).delete()
    full = make_execution(resources={"disk_mb": 1}, **order(hold=True))
    worker = in_background(full)
    wait_for(lambda: is_running(full))
    (execution_directory(full) / "big").write_bytes(os.urandom(2_000_000))
    worker.join(30)
    assert collect(present_runner()) == 0
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE executions_execution DISABLE TRIGGER USER")
        cursor.execute("UPDATE executions_execution SET ended_at = ended_at - interval '31 seconds'")
        cursor.execute("ALTER TABLE executions_execution ENABLE TRIGGER USER")
    assert collect(present_runner()) == 1
    assert not execution_directory(full).exists()


def test_what_ended_on_another_host_is_left_to_that_one(ended: Execution, settings: Any) -> None:
    settings.KEEP_CONTAINER_SECONDS = 0.0
    settings.HOST_NAME = "there"
    assert collect(present_runner()) == 0
