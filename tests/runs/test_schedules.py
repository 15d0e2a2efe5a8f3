"""Schedules: what people may make of them, and what each tick starts."""

from __future__ import annotations

import threading
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone
from django_celery_beat.models import CrontabSchedule, PeriodicTask, PeriodicTasks
from django_celery_beat.schedulers import DatabaseScheduler

from djinn.accounts.models import Role, User
from djinn.celery import app
from djinn.core.errors import Conflict, NotFound, UserError
from djinn.runs import tasks
from djinn.runs.models import Run, Schedule
from djinn.runs.schedules import (
    Wanted,
    change_schedule,
    create_schedule,
    delete_schedule,
    enable_schedule,
    next_due,
    schedules_seen_by,
    start_now,
    upcoming,
)
from djinn.runs.services import start_run
from djinn.runs.states import RUN_OPEN
from tests.make import make_user, step, told, work, write_pipeline

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("home")]

MINUTELY = Wanted(name="often", pipeline="work", cron="* * * * *", inputs={})


# --- Arrange ----------------------------------------------------------------------------------------------------------
@pytest.fixture(autouse=True)
def _pipeline(home: object) -> None:
    write_pipeline(step("A"), inputs={"count": {"type": "integer", "default": 1}})


@pytest.fixture
def owner() -> User:
    return make_user()


def made(owner: User, **keys: Any) -> Schedule:
    """A schedule that is due every minute, unless the keys say otherwise."""
    return create_schedule(user=owner, wanted=replace(MINUTELY, **keys))


def tick(schedule: Schedule) -> Schedule:
    """What beat's message does."""
    tasks.start_scheduled(schedule.pk)
    schedule.refresh_from_db()
    return schedule


def test_a_person_cannot_take_the_key_of_the_next_tick(owner: User) -> None:
    schedule = made(owner, overlap="queue")
    run = Run.objects.get(schedule=tick(schedule))
    later()
    taken = start_run(pipeline_id="work", inputs={}, user=owner, idempotency_key=run.idempotency_key)
    assert tick(schedule).last_message == ""
    assert Run.objects.filter(schedule=schedule).exclude(pk__in=[run.pk, taken.pk]).count() == 1


def later() -> None:
    """Let the runs so far be those of earlier ticks."""
    for run in Run.objects.exclude(idempotency_key=None):
        Run.objects.filter(pk=run.pk).update(idempotency_key=f"earlier-{run.pk}")


def state() -> tuple[Any, ...]:
    """Everything that a schedule has left."""
    return (
        list(Schedule.objects.values_list()),
        list(PeriodicTask.objects.values_list("pk", "enabled", "crontab", "args")),
        list(CrontabSchedule.objects.values_list()),
        Run.objects.count(),
    )


# --- Ticks ------------------------------------------------------------------------------------------------------------
def test_a_tick_starts_a_run_in_the_name_of_the_owner(owner: User) -> None:
    schedule = tick(made(owner, inputs={"count": "7"}))
    run = Run.objects.get()
    assert (run.created_by, run.schedule, run.inputs, run.pipeline) == (owner, schedule, {"count": 7}, "work")
    assert schedule.last_message == ""


def test_a_message_that_comes_twice_starts_one_run(owner: User) -> None:
    schedule = made(owner, cron=f"{timezone.now().minute} * * * *", overlap="queue")
    for _ in range(3):
        tick(schedule)
    assert (Run.objects.count(), schedule.last_message) == (1, "")


def test_messages_that_come_at_the_same_moment_start_one_run(owner: User) -> None:
    schedule = made(owner, cron=f"{timezone.now().minute} * * * *", overlap="queue")
    barrier, raised = threading.Barrier(6), []

    def hear() -> None:
        try:
            barrier.wait(10)
            tasks.start_scheduled(schedule.pk)
        except Exception as exc:  # the test looks at it
            raised.append(exc)
        finally:
            connection.close()

    threads = [threading.Thread(target=hear) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert (raised, Run.objects.count()) == ([], 1)


def test_the_next_tick_starts_another_run(owner: User) -> None:
    schedule = made(owner, overlap="queue")
    tick(schedule)
    later()
    tick(schedule)
    assert Run.objects.count() == 2


def test_a_message_that_comes_hours_late_starts_nothing_and_tells_so(owner: User) -> None:
    away = timezone.now() + timedelta(hours=12)
    schedule = tick(made(owner, cron=f"0 {away.hour} * * *"))
    assert (Run.objects.count(), schedule.last_message) == (0, "the message of this tick came hours late")


def test_a_message_for_a_schedule_that_is_gone_or_disabled_starts_nothing(owner: User) -> None:
    schedule = made(owner, is_enabled=False)
    tick(schedule)
    tasks.start_scheduled(10**9)
    assert Run.objects.count() == 0


# --- Overlap ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("overlap", "count"), [("skip", 1), ("queue", 2), ("cancel", 2)])
def test_a_tick_while_a_run_is_open_does_what_the_policy_says(owner: User, overlap: str, count: int) -> None:
    schedule = tick(made(owner, overlap=overlap))
    first = Run.objects.get()
    later()
    tick(schedule)
    first.refresh_from_db()
    assert Run.objects.count() == count
    assert (first.cancel_requested_at is not None) == (overlap == "cancel")
    assert (schedule.last_message == f"skipped: run {first.pk} of this schedule has not ended") == (overlap == "skip")


def test_a_run_that_is_cancelled_for_the_next_one_says_so(owner: User) -> None:
    schedule = tick(made(owner, overlap="cancel"))
    first = Run.objects.get()
    later()
    tick(schedule)
    ((_, data),) = told(first, "cancel_requested")
    assert data == {"by": "Djinn", "because": "superseded by the next run of schedule 'often'"}


def test_a_tick_after_the_run_has_ended_starts_the_next_one_and_clears_the_message(owner: User) -> None:
    schedule = tick(made(owner))
    later()
    tick(schedule)
    work(Run.objects.get())
    later()
    tick(schedule)
    assert (Run.objects.count(), schedule.last_message) == (2, "")


def test_runs_of_others_are_no_overlap(owner: User) -> None:
    tick(made(owner))
    tick(made(owner, name="other"))
    assert Run.objects.count() == 2


def test_a_start_that_fails_cancels_nothing(owner: User) -> None:
    schedule = tick(made(owner, overlap="cancel"))
    later()
    write_pipeline(step("A"), inputs={"other": {"type": "string"}})
    Schedule.objects.update(inputs={"count": 1})
    tick(schedule)
    assert Run.objects.get().cancel_requested_at is None
    assert "inputs do not fit" in schedule.last_message


# --- What goes wrong at a tick ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("change", [{"is_active": False}, {"role": Role.VIEWER}, {"role": Role.NONE}])
def test_an_owner_who_may_not_start_runs_any_more_starts_none(owner: User, change: dict[str, Any]) -> None:
    schedule = made(owner)
    User.objects.update(**change)
    tick(schedule)
    assert (Run.objects.count(), "may not start runs any more" in schedule.last_message) == (0, True)


@pytest.mark.parametrize("text", [None, "name: [", "name: work\nsteps:\n  - id: A\n    rum: x\n"])
def test_a_pipeline_that_is_gone_or_broken_is_told_and_heals(owner: User, text: str | None, settings: Any) -> None:
    schedule = made(owner)
    path = settings.PIPELINES_DIRECTORY / "work.yaml"
    good = path.read_text()
    path.unlink() if text is None else path.write_text(text)
    tick(schedule)
    assert (Run.objects.count(), "work" in schedule.last_message) == (0, True)
    path.write_text(good)
    tick(schedule)
    assert (Run.objects.count(), schedule.last_message) == (1, "")


def test_inputs_that_do_not_fit_any_more_are_told(owner: User) -> None:
    schedule = made(owner)
    write_pipeline(step("A"), inputs={"count": {"type": "integer"}})
    assert "count: is required" in tick(schedule).last_message


def test_a_full_group_that_rejects_is_told(owner: User) -> None:
    write_pipeline(step("A"), concurrency={"group": "g", "policy": "reject"})
    schedule = tick(made(owner, overlap="queue"))
    later()
    assert "full" in tick(schedule).last_message


# --- What people do ---------------------------------------------------------------------------------------------------
def due_entries() -> dict[int, Any]:
    """What beat reads from the rows, by the number of the schedule."""
    found = {}
    for entry in DatabaseScheduler(app=app, lazy=True).all_as_schedule().values():
        if entry.task == "runs.start_scheduled":
            found[entry.args[0]] = entry
    return found


def test_beat_is_told_of_a_new_schedule(owner: User) -> None:
    schedule = made(owner, cron="*/5 * * * mon-fri", timezone="Europe/Berlin")
    entry = due_entries()[schedule.pk]
    assert (entry.options["queue"], str(entry.schedule.tz), entry.schedule.minute) == (
        "control",
        "Europe/Berlin",
        set(range(0, 60, 5)),
    )


def test_beat_is_told_of_every_change(owner: User) -> None:
    schedule = made(owner)
    seen = [PeriodicTasks.last_change()]

    def told_again() -> bool:
        seen.append(PeriodicTasks.last_change())
        return seen[-1] > seen[-2]

    change_schedule(schedule=schedule, wanted=replace(MINUTELY, cron="7 * * * *"), user=owner)
    assert told_again()
    assert due_entries()[schedule.pk].schedule.minute == {7}
    enable_schedule(schedule=schedule, is_enabled=False, user=owner)
    assert told_again()
    assert due_entries() == {}
    enable_schedule(schedule=schedule, is_enabled=True, user=owner)
    assert told_again()
    delete_schedule(schedule=schedule)
    assert told_again()
    assert due_entries() == {}


@pytest.mark.parametrize("how", ["changed", "enabled"])
def test_times_that_have_passed_before_a_change_are_not_made_up_for(owner: User, how: str) -> None:
    schedule = made(owner)
    PeriodicTask.objects.update(last_run_at=timezone.now() - timedelta(hours=3))
    if how == "enabled":
        enable_schedule(schedule=schedule, is_enabled=False, user=owner)
        enable_schedule(schedule=schedule, is_enabled=True, user=owner)
    else:
        passed = timezone.now() - timedelta(minutes=2)
        change_schedule(
            schedule=schedule, wanted=replace(MINUTELY, cron=f"{passed.minute} {passed.hour} * * *"), user=owner
        )
    entry = due_entries()[schedule.pk]
    assert entry.last_run_at > timezone.now() - timedelta(minutes=1)
    assert not entry.is_due().is_due


CHANGES = [
    ({"name": "renamed"}, True),
    ({"is_enabled": False}, False),
    ({}, False),
    ({"cron": "7 * * * *"}, True),
    ({"timezone": "Europe/Berlin"}, True),
    ({"inputs": {"count": 2}}, True),
    ({"inputs": {"count": 2}, "is_enabled": False}, True),
    ({"overlap": "queue"}, True),
]


@pytest.mark.parametrize(("change", "takes_over"), CHANGES, ids=[str(change) for change, _ in CHANGES])
def test_who_changes_a_schedule_becomes_its_owner(owner: User, change: dict[str, Any], takes_over: bool) -> None:
    schedule, other = made(owner), make_user("other")
    change_schedule(schedule=schedule, wanted=replace(MINUTELY, **change), user=other)
    assert schedule.created_by == (other if takes_over else owner)


def test_the_runs_of_a_schedule_are_those_of_who_changed_it_last(owner: User) -> None:
    schedule, other = made(owner), make_user("other")
    tick(change_schedule(schedule=schedule, wanted=replace(MINUTELY, overlap="queue"), user=other))
    assert Run.objects.get().created_by == other


def test_who_enables_a_schedule_becomes_its_owner_and_who_disables_it_does_not(owner: User) -> None:
    schedule, other = made(owner), make_user("other")
    assert enable_schedule(schedule=schedule, is_enabled=True, user=other).created_by == owner  # it was enabled
    assert enable_schedule(schedule=schedule, is_enabled=False, user=other).created_by == owner
    assert enable_schedule(schedule=schedule, is_enabled=True, user=other).created_by == other


def test_a_deleted_schedule_leaves_its_runs_and_nothing_else(owner: User) -> None:
    schedule = tick(made(owner))
    run = work(Run.objects.get())
    delete_schedule(schedule=schedule)
    run.refresh_from_db()
    left = (Schedule.objects.count(), PeriodicTask.objects.count(), CrontabSchedule.objects.count())
    assert (left, run.schedule, run.status) == ((0, 0, 0), None, "succeeded")


def test_a_schedule_that_is_gone_cannot_be_changed(owner: User) -> None:
    schedule = made(owner)
    delete_schedule(schedule=Schedule.objects.get())
    for act in (
        lambda: change_schedule(schedule=schedule, wanted=MINUTELY, user=owner),
        lambda: enable_schedule(schedule=schedule, is_enabled=False, user=owner),
        lambda: delete_schedule(schedule=schedule),
        lambda: start_now(schedule=schedule, user=owner),
    ):
        with pytest.raises(NotFound):
            act()


WRONG = [
    ({"name": ""}, "name"),
    ({"name": "x" * 101}, "name"),
    ({"cron": "nonsense"}, "cron"),
    ({"timezone": "Mars/Base"}, "timezone"),
    ({"overlap": "sometimes"}, "overlap"),
    ({"inputs": {"count": "many"}}, "inputs.count"),
    ({"inputs": {"nobody": 1}}, "inputs.nobody"),
]


@pytest.mark.parametrize(("wrong", "field"), WRONG)
def test_what_is_wrong_with_a_schedule_is_told_and_nothing_is_stored(
    owner: User, wrong: dict[str, Any], field: str
) -> None:
    before = state()
    with pytest.raises(UserError) as caught:
        made(owner, **wrong)
    assert (list(caught.value.details), state()) == ([field], before)


@pytest.mark.parametrize(("wrong", "field"), WRONG)
def test_what_is_wrong_with_a_change_is_told_and_nothing_changes(
    owner: User, wrong: dict[str, Any], field: str
) -> None:
    schedule = made(owner)
    before = state()
    with pytest.raises(UserError) as caught:
        change_schedule(schedule=schedule, wanted=replace(MINUTELY, **wrong), user=owner)
    assert (list(caught.value.details), state()) == ([field], before)


def test_an_unknown_pipeline_is_refused(owner: User) -> None:
    with pytest.raises(NotFound):
        made(owner, pipeline="none")
    assert not Schedule.objects.exists()


def test_a_name_that_is_taken_is_a_conflict_and_nothing_is_stored(owner: User) -> None:
    made(owner)
    other = made(owner, name="other")
    before = state()
    for act in (lambda: made(owner), lambda: change_schedule(schedule=other, wanted=MINUTELY, user=owner)):
        with pytest.raises(Conflict, match="already"):
            act()
    assert state() == before


# --- Now --------------------------------------------------------------------------------------------------------------
def test_a_start_by_hand_is_in_the_name_of_who_did_it(owner: User) -> None:
    schedule, other = made(owner, is_enabled=False), make_user("otto")
    run = start_now(schedule=schedule, user=other)
    assert (run.created_by, run.schedule) == (other, schedule)


def test_a_start_by_hand_keeps_to_the_policy(owner: User) -> None:
    schedule = made(owner)
    run = start_now(schedule=schedule, user=owner)
    with pytest.raises(Conflict, match=f"run {run.pk}"):
        start_now(schedule=schedule, user=owner)
    assert Run.objects.filter(status__in=RUN_OPEN).count() == 1


# --- What people see --------------------------------------------------------------------------------------------------
def test_who_may_look_sees_all_and_others_their_own(owner: User) -> None:
    schedule = made(owner)
    viewer, outsider = make_user("viola", Role.VIEWER), make_user("otto", Role.NONE)
    User.objects.filter(pk=owner.pk).update(role=Role.NONE)
    owner.refresh_from_db()
    assert [list(schedules_seen_by(user)) for user in (viewer, owner, outsider)] == [[schedule], [schedule], []]


def test_the_next_time_is_told_while_the_schedule_is_enabled(owner: User) -> None:
    schedule = made(owner)
    due = next_due(schedule)
    assert isinstance(due, datetime)
    assert timedelta(0) < due - timezone.now() <= timedelta(minutes=1)
    assert next_due(enable_schedule(schedule=schedule, is_enabled=False, user=owner)) is None


def test_times_to_come_can_be_seen_before_a_schedule_is_made() -> None:
    first, second = upcoming("30 6 * * *", "Europe/Berlin", 2)
    assert second - first in {timedelta(hours=hours) for hours in (23, 24, 25)}
