"""Each safeguard, switched off: then something breaks that the checker finds, or the next safeguard behind it refuses.

Every scenario is played twice, as the code is and as it would be without the safeguard.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from django.conf import settings
from django.db import DatabaseError, connection

from djinn.celery import app
from djinn.core.faults import InjectedFault
from djinn.core.installation.paths import Installation
from djinn.events.log import NewEvent
from djinn.events.models import Event
from djinn.executions.lease import Fenced
from djinn.executions.models import Execution
from djinn.executions.places import execution_directory
from djinn.executions.relay import Relay
from djinn.executions.states import ExecutionStatus
from djinn.runs import advance, dispatch, engine
from djinn.runs.models import Run
from djinn.runs.services import cancel_run
from djinn.runs.states import RUN_MOVES, RunStatus
from djinn.runs.turn import turn_of
from runtime_image.djinn_runtime.protocol import SCRATCH_NAME, Brief, dump_brief
from tests.faults import mutants
from tests.faults.harness import diary
from tests.faults.inside import OWNER, Inside
from tests.make import begin, claimed, empty_queues, expire, journal, played, prepared, step, tell, work
from tests.runs.test_messages import age
from tests.stack.live import wait_for

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.timeout(120),
    pytest.mark.xdist_group("messages"),
    pytest.mark.usefixtures("quiet"),
]


@pytest.fixture
def quiet() -> None:
    empty_queues()


SWEPT_SECONDS = 5.0
"""Longer than anything has to wait before a sweep takes it for forgotten, but for what `age` makes older."""
ELSEWHERE = "elsewhere:1"
DATABASE = "the database"
WAITS_FOR_A_LOCK = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


@pytest.fixture
def inside(home: Installation) -> Iterator[Inside]:
    """What the checker looks at."""
    view = Inside(home)
    view.watch()
    yield view
    view.close()


@dataclass
class Sender:
    """What was rung while it listens: name of the task and primary key of the first link."""

    heard: list[tuple[str, int]]

    def __call__(self, message: Any) -> bool:
        first = message.tasks[0] if hasattr(message, "tasks") else message
        self.heard.append((first.task, first.args[0]))
        return True


# --- Scenarios: each returns what was broken --------------------------------------------------------------------------
def begun() -> tuple[Run, Execution]:
    """A run whose only step waits for a worker."""
    run = begin(step("WORK", played(hold=True)))
    execution = prepared(run).execution
    assert execution is not None
    return run, execution


def relay_of(execution: Execution, owner: str = OWNER) -> Relay:
    lease = claimed(execution, owner=owner, host=settings.HOST_NAME)
    return Relay(Execution.objects.get(pk=execution.pk), lease)


def refused(action: Callable[[], object]) -> set[str]:
    """The database, when it refuses what is done."""
    try:
        action()
    except DatabaseError:
        return {DATABASE}
    return set()


def a_worker_that_was_given_up_ships_on(inside: Inside) -> set[str]:
    run, execution = begun()
    stale = relay_of(execution)
    expire(execution)
    claimed(execution, owner=ELSEWHERE, host=settings.HOST_NAME)
    journal(execution, ("ready", {}))
    with suppress(Fenced):
        stale.ship()
    return inside.broken(run.pk) - {"I5"}


def two_relays_ship_the_same_bytes(inside: Inside) -> set[str]:
    run, execution = begun()
    lease = claimed(execution, owner=OWNER, host=settings.HOST_NAME)
    relays = [Relay(Execution.objects.get(pk=execution.pk), lease) for _ in range(2)]
    journal(execution, ("ready", {}), ("log", {"message": "once"}))
    refusals = set().union(*(refused(relay.ship) for relay in relays))
    return refusals | inside.broken(run.pk) - {"I5"}


def a_relay_dies_between_offset_and_events(inside: Inside) -> set[str]:
    run, execution = begun()
    journal(execution, ("ready", {}), ("log", {"message": "first"}))
    with mutants.armed("relay.offset_written=raise"), suppress(InjectedFault):
        relay_of(execution).ship()
    expire(execution)
    journal(execution, ("log", {"message": "second"}), start=3)
    relay_of(execution).ship_all()
    return inside.broken(run.pk) - {"I5"}


def an_execution_that_has_ended_ends_otherwise(inside: Inside) -> set[str]:
    run = work(begin(step("WORK")))
    rows = Execution.objects.filter(step_run__run=run)
    return refused(lambda: rows.update(status=ExecutionStatus.KILLED, reason="cancelled")) | inside.broken(run.pk)


def a_stale_copy_of_a_run_is_moved_on(inside: Inside) -> set[str]:
    stale = begin(step("WORK"))
    run = work(Run.objects.get(pk=stale.pk))
    stale.status = RunStatus.RUNNING

    def move() -> None:
        mutants.transitions.transition(stale, RunStatus.FAILED, moves=RUN_MOVES, reason="error")

    return refused(move) | inside.broken(run.pk)


def two_turns_at_once(inside: Inside) -> set[str]:
    """The second begins while the first has decided, and not committed yet."""
    run = begin(step("WORK"))
    refusals: set[str] = set()
    has_ended = threading.Event()

    def other() -> None:
        refusals.update(refused(lambda: engine.advance_run(run.pk)))
        connection.close()
        has_ended.set()

    thread = threading.Thread(target=other)
    with turn_of(run.pk) as turn:
        assert turn is not None
        advance.advance(turn)
        thread.start()
        wait_for(lambda: has_ended.is_set() or inside.rows(WAITS_FOR_A_LOCK), why="the other turn")
    thread.join(20)
    return refusals | inside.broken(run.pk) - {"I5"}


def two_unlocked_turns_at_once(inside: Inside) -> set[str]:
    with mutants.without_the_lock_of_a_turn():
        return two_turns_at_once(inside)


def every_message_but_the_sweeps_is_lost(inside: Inside) -> set[str]:
    run = begin(step("WORK"))
    sender = Sender([])
    deadline = time.monotonic() + SWEPT_SECONDS
    with mutants.replaced(dispatch, "_send", sender):
        while time.monotonic() < deadline and inside.broken(run.pk):
            age(60)
            sender.heard.clear()
            mutants.sweep.sweep()
            for name, number in tuple(sender.heard):
                app.tasks[name].run(number)
    return inside.broken(run.pk)


def a_container_is_started_a_second_time(inside: Inside) -> set[str]:
    run, execution = begun()
    directory = execution_directory(execution)
    (directory / SCRATCH_NAME).mkdir(parents=True)
    brief = Brief(execution.key, "command", "token", str(directory), "none", 30, script=diary(things=1, seconds=0))
    (directory / "brief.json").write_bytes(dump_brief(brief))
    command = [sys.executable, "-c", mutants.RUNTIME, str(directory)]
    environment = {**os.environ, "PYTHONPATH": str(settings.RUNTIME_DIRECTORY)}
    codes = [subprocess.run(command, env=environment, timeout=60, check=False).returncode for _ in range(2)]
    assert codes[0] == 0
    return inside.broken(run.pk) - {"I5"}


def an_engine_tells_another_exit_code_than_the_work(inside: Inside) -> set[str]:
    """As it does after it was away: 255 instead of 0."""
    return inside.broken(work(begin(step("WORK", played(exit_code=255)))).pk)


def an_event_is_changed(inside: Inside) -> set[str]:
    run = work(begin(step("WORK", played(records=[{"type": "log", "data": {"message": "so"}}]))))
    rows = Event.objects.filter(stream__name=run.stream, type="log")
    return refused(lambda: rows.update(data={"message": "otherwise"})) | inside.broken(run.pk)


def an_event_comes_after_the_end(inside: Inside) -> set[str]:
    run = work(begin(step("WORK")))
    execution = Execution.objects.get(step_run__run=run)
    late = NewEvent("log", {"message": "late"}, execution=execution.pk, offset=execution.journal_offset)
    return refused(lambda: tell(run.stream, late)) | inside.broken(run.pk)


def a_worker_hears_of_a_step_after_the_cancel(inside: Inside) -> set[str]:
    """And no control worker lives to apply it before."""
    run = begin(step("WORK"))
    number = prepared(run).pk
    cancel_run(run=run)
    engine.execute_step(number)
    return inside.broken(run.pk) - {"I5"}


def the_work_ends_between_the_cancel_and_the_stop(inside: Inside) -> set[str]:
    run = begin(step("WORK"))
    number = prepared(run).pk
    engine.execute_step(number)
    cancel_run(run=run)
    Run.objects.filter(pk=run.pk).update(cancel_requested_at=run.created_at)
    engine.settle_step(number)
    return inside.broken(run.pk)


# --- Safeguards -------------------------------------------------------------------------------------------------------
Scenario = Callable[[Inside], set[str]]
Mutant = Callable[[], AbstractContextManager[None]]


@dataclass(frozen=True)
class Safeguard:
    """A scenario, how to switch the safeguard off, and what is broken with it and without it."""

    play: Scenario
    off: Mutant
    without: set[str]
    with_it: set[str] = field(default_factory=set)


def constraints(*names: tuple[str, str]) -> Mutant:
    """Several constraints at once, each with its table."""

    @contextmanager
    def off() -> Iterator[None]:
        with ExitStack() as stack:
            for table, name in names:
                stack.enter_context(mutants.without_constraint(table, name))
            yield

    return off


SAFEGUARDS = {
    "fencing": Safeguard(a_worker_that_was_given_up_ships_on, mutants.without_fencing, {"I2"}),
    "one event a record": Safeguard(
        two_relays_ship_the_same_bytes,
        constraints(("events_event", "event_journal_record_once")),
        {"I4"},
        {DATABASE},
    ),
    "offset in the transaction": Safeguard(
        a_relay_dies_between_offset_and_events, mutants.with_the_offset_apart, {"I4"}
    ),
    "final is final": Safeguard(
        an_execution_that_has_ended_ends_otherwise,
        lambda: mutants.without_trigger("executions_execution", "executions_guard"),
        {"I1"},
        {DATABASE},
    ),
    "guarded transition": Safeguard(a_stale_copy_of_a_run_is_moved_on, mutants.with_free_transitions, {DATABASE}),
    "lock of a turn": Safeguard(two_turns_at_once, mutants.without_the_lock_of_a_turn, {DATABASE}),
    "one step run a try": Safeguard(
        two_unlocked_turns_at_once,
        constraints(("runs_steprun", "step_run_try_once"), ("runs_steprun", "step_run_number_once")),
        {"I3"},
        {DATABASE},
    ),
    "sweep": Safeguard(every_message_but_the_sweeps_is_lost, mutants.without_the_sweep, {"I5"}),
    "claims ask what holds the run": Safeguard(
        a_worker_hears_of_a_step_after_the_cancel, mutants.without_asking_what_holds_a_run, {"I6"}
    ),
    "a success after the cancel is none": Safeguard(
        the_work_ends_between_the_cancel_and_the_stop, mutants.with_successes_that_come_too_late, {"I6"}
    ),
    "one start": Safeguard(a_container_is_started_a_second_time, mutants.without_the_guard_of_a_start, {"I3"}),
    "the last record decides": Safeguard(
        an_engine_tells_another_exit_code_than_the_work, mutants.with_exit_codes_that_decide, {"I4"}
    ),
    "the log is append-only": Safeguard(
        an_event_is_changed,
        lambda: mutants.without_trigger("events_event", "events_append_only"),
        {"I4"},
        {DATABASE},
    ),
    "no event after the end": Safeguard(
        an_event_comes_after_the_end,
        lambda: mutants.without_trigger("events_event", "events_not_after_the_end"),
        {"I4"},
        {DATABASE},
    ),
}


@pytest.mark.parametrize("name", SAFEGUARDS)
def test_with_the_safeguard_what_it_guards_holds(inside: Inside, name: str) -> None:
    assert SAFEGUARDS[name].play(inside) == SAFEGUARDS[name].with_it


@pytest.mark.parametrize("name", SAFEGUARDS)
def test_without_the_safeguard_something_breaks(inside: Inside, name: str) -> None:
    safeguard = SAFEGUARDS[name]
    with safeguard.off():
        assert safeguard.play(inside) == safeguard.without
