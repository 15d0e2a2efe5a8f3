"""Work that turns all that it can write against its host: nothing of the host is changed, nothing begins twice."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from django.db import IntegrityError

from djinn.events.log import read_after
from djinn.executions.launch import launch
from djinn.executions.models import Execution
from djinn.executions.places import execution_directory, present_runner, workspace_of
from djinn.executions.supervise import see_through
from djinn.runner.base import Phase, Runner
from runtime_image.djinn_runtime.protocol import BRIEF_NAME, GUARD_NAME, JOURNAL_NAME, SCRATCH_NAME
from tests.make import claimed, expire, journal, make_execution, played
from tests.stack.live import wait_for

pytestmark = [pytest.mark.timeout(300), pytest.mark.django_db(transaction=True)]

PRECIOUS = "precious\n"
PLANT = """
import os, sys
directory, victim, pid = sys.argv[1:4]
names = ["brief.json", "journal.ndjson", "outputs", "script", "reserve", "workspace", "scratch"]
names += [f".brief.json.{n}" for n in (pid, *range(1, 3000))]
os.chdir(directory)
for where, _, _ in list(os.walk(".")):
    for name in ("started", *names):
        path = os.path.join(where, name)
        for attack in (os.rmdir, lambda path: os.rename(path, path + ".old"), lambda path: os.symlink(victim, path)):
            if attack is os.rmdir or name != "started":
                try:
                    attack(path)
                except OSError:
                    pass
open(sys.argv[4] + "/planted", "w").close()
"""
"""Removes the guard and puts links to the victim at every name that it can; where it cannot, it goes on."""


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    path = tmp_path / "victim"
    path.write_text(PRECIOUS)
    path.chmod(0o600)
    return path


def attacking(victim: Path, then: str, *, image: str = "none") -> Execution:
    """An execution that plants its links once, and then does something else."""
    script = (
        f'scratch="$(dirname "$DJINN_OUTPUT")"; directory="$(dirname "$scratch")"\n'
        f"if [ ! -e planted ]; then cat > plant.py <<'END'\n{PLANT}\nEND\n"
        f'python3 plant.py "$directory" {victim} {os.getpid()} "$PWD"\n{then}\nfi\n'
    )
    order = {"mode": "command", "script": script, "outputs": []}
    return make_execution(image=image, workspace="run-1", order=order)


def planted(execution: Execution, runner: Runner) -> None:
    """Launch it, and wait until its links are there."""
    launch(execution, claimed(execution), runner)
    wait_for(lambda: (workspace_of(execution).tree / "planted").exists(), why="the links")


def gone_on(execution: Execution, runner: Runner) -> Execution:
    """The execution after its container went with the stack and another worker has seen to it."""
    runner.remove(execution.key)
    expire(execution)
    see_through(claimed(execution, owner="next"), runner)
    execution.refresh_from_db()
    return execution


def is_unchanged(victim: Path) -> bool:
    status = victim.stat()
    return (victim.read_text(), status.st_uid, status.st_mode & 0o777) == (PRECIOUS, os.getuid(), 0o600)


@pytest.mark.docker
def test_a_container_that_planted_links_changes_nothing_when_its_stack_starts_again(
    docker: Runner, image: str, victim: Path
) -> None:
    execution = attacking(victim, "sleep 600", image=image)
    planted(execution, docker)
    gone_on(execution, docker)
    assert is_unchanged(victim)
    assert (execution.status, docker.inspect(execution.key).phase) == ("lost", Phase.ABSENT)


@pytest.mark.docker
def test_one_that_empties_its_journal_too_is_started_again_and_still_changes_nothing(
    docker: Runner, image: str, victim: Path
) -> None:
    """Nothing is left that says that it began, but for what only the host can write."""
    execution = attacking(victim, ': > "$directory/journal.ndjson"; touch emptied; sleep 600', image=image)
    planted(execution, docker)
    wait_for(lambda: (workspace_of(execution).tree / "emptied").exists(), why="the empty journal")
    gone_on(execution, docker)
    assert is_unchanged(victim)
    assert execution.status in {"exited", "lost"}


def test_plain_processes_that_plant_links_change_nothing_either(process: Runner, victim: Path) -> None:
    """They are not isolated and could write to the file themselves; the host must not do it for them."""
    execution = attacking(victim, "sleep 600")
    planted(execution, process)
    gone_on(execution, process)
    assert is_unchanged(victim)
    assert execution.status == "lost"


@pytest.mark.docker
def test_a_container_can_replace_neither_its_brief_nor_its_journal(docker: Runner, image: str) -> None:
    script = """
set +e
cd "$(dirname "$DJINN_OUTPUT")/.."
for name in brief.json journal.ndjson scratch new; do
  mv $name $name.old; rm -rf $name; ln -s /etc/passwd $name; echo x > other; mkdir other
done
echo x >> brief.json
chmod 666 brief.json
echo "seen: $(ls | sort | tr '\\n' ' ')"
: > "$DJINN_OUTPUT"
"""
    execution = make_execution(image=image, order={"mode": "command", "script": script, "outputs": []})
    assert see_through(claimed(execution), docker)
    execution.refresh_from_db()
    directory = execution_directory(execution)
    told = "".join(event.data.get("text", "") for event in read_after("test", 0) if event.type == "output")
    assert "seen: brief.json journal.ndjson scratch workspace" in told
    assert not [path for path in directory.iterdir() if path.is_symlink()]
    assert (execution.status, execution.reason) == ("exited", "")
    if os.getuid() == 0:
        assert {path.stat().st_uid for path in (directory, directory / BRIEF_NAME)} == {0}


# --- What a row says about having begun -------------------------------------------------------------------------------
HOLDING = {"order": {"mode": "command", "script": played(hold=True), "outputs": []}}


@pytest.mark.usefixtures("home")
def test_that_a_container_may_begin_is_stored_before_it_is_asked_for() -> None:
    execution = make_execution(**HOLDING)
    launch(execution, claimed(execution), present_runner())
    assert Execution.objects.get().launched_at is not None


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("read", [{"ready_at": "2026-01-01T00:00Z"}, {"journal_offset": 10, "journal_count": 1}])
def test_what_was_heard_of_is_never_launched_again_whatever_is_gone(read: dict[str, object]) -> None:
    execution = make_execution(**HOLDING)
    Execution.objects.update(**read)
    see_through(claimed(execution), present_runner())
    execution.refresh_from_db()
    assert (execution.status, execution.launched_at) == (("lost", None))
    assert present_runner().inspect(execution.key).phase is Phase.ABSENT


@pytest.mark.usefixtures("home")
def test_a_journal_that_nobody_has_read_keeps_a_vanished_container_from_a_second_start() -> None:
    execution = make_execution(**HOLDING)
    journal(execution, ("ready", {}))
    see_through(claimed(execution), present_runner())
    execution.refresh_from_db()
    assert (execution.status, execution.journal_count) == ("lost", 1)
    assert not (execution_directory(execution) / SCRATCH_NAME / GUARD_NAME).exists()


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("read", [{"ready_at": "2026-01-01T00:00Z"}, {"journal_offset": 10, "journal_count": 1}])
def test_the_database_refuses_a_second_launch_of_what_has_begun(read: dict[str, object]) -> None:
    make_execution(launched_at="2026-01-01T00:00Z", **read)
    with pytest.raises(IntegrityError, match="has begun"):
        Execution.objects.update(launched_at="2026-01-02T00:00Z")


@pytest.mark.usefixtures("home")
def test_the_database_lets_no_launch_be_forgotten() -> None:
    make_execution(launched_at="2026-01-01T00:00Z")
    with pytest.raises(IntegrityError, match="stays so"):
        Execution.objects.update(launched_at=None)


# --- A directory that a container of an older version could fill ------------------------------------------------------
@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("name", [BRIEF_NAME, SCRATCH_NAME])
def test_links_at_the_names_that_the_host_writes_lead_nowhere(victim: Path, name: str) -> None:
    execution = make_execution(order={"mode": "command", "script": "true", "outputs": []})
    directory = execution_directory(execution)
    directory.mkdir()
    (directory / name).symlink_to(victim)
    see_through(claimed(execution), present_runner())
    assert is_unchanged(victim)


@pytest.mark.usefixtures("home")
@pytest.mark.skipif(os.getuid() != 0, reason="needs to give a directory away")
def test_a_directory_that_belonged_to_a_container_is_made_anew(victim: Path) -> None:
    execution = make_execution(order={"mode": "command", "script": "true", "outputs": []})
    directory = execution_directory(execution)
    directory.mkdir()
    (directory / BRIEF_NAME).symlink_to(victim)
    os.chown(directory, 10001, 10001)
    see_through(claimed(execution), present_runner())
    execution.refresh_from_db()
    assert (execution.status, directory.stat().st_uid) == ("exited", 0)
    assert (directory / JOURNAL_NAME).stat().st_size > 0
    assert is_unchanged(victim)
