"""Runs that start by the clock: what people do to schedules, and what beat's doorbell does.

Beat rings `runs.start_scheduled` with the schedule's number alone. Which tick that was is read from the clock, so a
message that comes twice, or late, is the same tick, and starts the same run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from datetime import datetime
from typing import Any
from uuid import uuid4

import structlog
from django.contrib.auth.models import AnonymousUser
from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from django_celery_beat.models import PeriodicTask, PeriodicTasks

from djinn.accounts.models import Role, User
from djinn.core.errors import Conflict, NotFound, UserError
from djinn.executions.lease import DatabaseClock
from djinn.pipelines.errors import InputsInvalid
from djinn.pipelines.inputs import resolve_inputs
from djinn.runs import catalogue
from djinn.runs.admission import group_of, lock_starts
from djinn.runs.cron import due_times, present_tick, read_cron
from djinn.runs.dispatch import CONTROL, START_SCHEDULED
from djinn.runs.models import Run, Schedule
from djinn.runs.services import MOST_INPUT_BYTES, cancel_superseded, group_of_start, start_run
from djinn.runs.states import RUN_OPEN

log = structlog.get_logger(__name__)

JSON = Any
CLOCK = "schedule"
"""The space of the keys that ticks give to their runs: no person chooses one of them."""
LONGEST_MESSAGE, LONGEST_NAME = 2000, 100


@dataclass(frozen=True)
class Wanted:
    """What a schedule shall be."""

    name: str
    pipeline: str
    cron: str
    inputs: Mapping[str, JSON]
    timezone: str = "UTC"
    model: str = ""
    overlap: str = Schedule.Overlap.SKIP
    is_enabled: bool = True


# --- What people do ---------------------------------------------------------------------------------------------------
def create_schedule(*, user: User, wanted: Wanted) -> Schedule:
    """A new schedule, whose runs are the person's. Raises `UserError` for whatever is wrong with it, `Conflict` for a
    name that is taken, `NotFound` for an unknown pipeline."""
    _check(wanted)
    crontab = read_cron(wanted.cron, wanted.timezone)
    with _name_is_free(wanted.name), transaction.atomic():
        crontab.save()
        name = f"schedule-{uuid4().hex}"
        entry = PeriodicTask.objects.create(
            name=name, task=START_SCHEDULED, queue=CONTROL, crontab=crontab, enabled=False, description=wanted.name
        )
        schedule = Schedule.objects.create(**_columns(wanted), created_by=user, entry=entry)
        entry.args = json.dumps([schedule.pk])
        _set_going(entry, is_enabled=wanted.is_enabled)
    schedule.refresh_from_db()
    return schedule


def change_schedule(*, schedule: Schedule, wanted: Wanted, user: User) -> Schedule:
    """Make the schedule what is wanted; raises as `create_schedule`. Times that have passed start nothing.

    Whoever changes it becomes the owner: its runs are theirs, not of somebody who asked for something else.
    """
    return patch_schedule(schedule=schedule, changes=asdict(wanted), user=user)


def patch_schedule(*, schedule: Schedule, changes: Mapping[str, JSON], user: User) -> Schedule:
    """Change what is named and leave the rest as it is at that moment; else as `change_schedule`."""
    with transaction.atomic():
        locked = _locked(schedule.pk)
        wanted = replace(present_of(locked), **changes)
        _check(wanted)
        _store_change(locked, wanted, user)
    schedule.refresh_from_db()
    return schedule


def _store_change(locked: Schedule, wanted: Wanted, user: User) -> None:
    crontab = read_cron(wanted.cron, wanted.timezone)
    with _name_is_free(wanted.name), transaction.atomic():
        crontab.pk = locked.entry.crontab_id
        crontab.save()
        owner = _owner_after(locked, wanted, user)
        Schedule.objects.filter(pk=locked.pk).update(**_columns(wanted), last_message="", created_by=owner)
        locked.entry.description = wanted.name
        _set_going(locked.entry, is_enabled=wanted.is_enabled)


def enable_schedule(*, schedule: Schedule, is_enabled: bool, user: User) -> Schedule:
    """Let the schedule start runs, or not; again is no error. What was missed meanwhile is not made up for.

    Whoever enables it becomes the owner; disabling it leaves it whose it is.
    """
    with transaction.atomic():
        locked = _locked(schedule.pk)
        if locked.is_enabled != is_enabled:
            owner = _owner_after(locked, replace(present_of(locked), is_enabled=is_enabled), user)
            Schedule.objects.filter(pk=locked.pk).update(is_enabled=is_enabled, created_by=owner)
            _set_going(locked.entry, is_enabled=is_enabled)
    schedule.refresh_from_db()
    return schedule


def delete_schedule(*, schedule: Schedule) -> None:
    """Delete the schedule; its runs stay."""
    with transaction.atomic():
        locked = _locked(schedule.pk)
        entry, crontab = locked.entry, locked.entry.crontab
        locked.delete()
        entry.delete()
        crontab.delete()
        PeriodicTasks.update_changed()


def start_now(*, schedule: Schedule, user: User) -> Run:
    """A run of the schedule at once, in the person's own name, whether it is enabled or not.

    Raises `Conflict` when the schedule skips while a run of it is open, and what `start_run` raises.
    """
    with transaction.atomic():
        locked = _locked(schedule.pk)
        if reason := _overlap(locked):
            raise Conflict(reason)
        return _start(locked, user=user, key=None)


# --- What the clock does ----------------------------------------------------------------------------------------------
def start_scheduled(schedule_id: int) -> None:
    """Start the run of the present tick, unless it was started; why nothing starts is told in the schedule."""
    with transaction.atomic():
        try:
            schedule = _locked(schedule_id)
        except NotFound:
            return
        if schedule.is_enabled:
            message = _start_tick(schedule)
            Schedule.objects.filter(pk=schedule.pk).update(last_message=message[:LONGEST_MESSAGE])


def _start_tick(schedule: Schedule) -> str:
    """Why no run has started; empty when one has."""
    tick = present_tick(schedule.entry.crontab)
    if tick is None:
        return _told(schedule, "the message of this tick came hours late")
    key = f"schedule-{schedule.pk}-{tick:%Y-%m-%dT%H:%MZ}"
    if Run.objects.filter(schedule=schedule, key_space=CLOCK, idempotency_key=key).exists():
        return schedule.last_message
    owner = schedule.created_by
    if not owner.has_role(Role.OPERATOR):
        return _told(schedule, f"{owner.get_username()}, whose schedule this is, may not start runs any more")
    try:
        with transaction.atomic():
            if reason := _overlap(schedule):
                return _told(schedule, reason)
            run = _start(schedule, user=owner, key=key)
    except UserError as exc:
        return _told(schedule, " ".join([exc.message, *(f"{name}: {text}." for name, text in exc.details.items())]))
    log.info("schedule_started", schedule=schedule.pk, run=run.pk, tick=tick.isoformat())
    return ""


def _overlap(schedule: Schedule) -> str:
    """Apply the overlap policy to the schedule's open runs; why nothing may start, empty when it may.

    Raises what `start_run` raises for inputs that do not fit any more.
    """
    open_runs = list(Run.objects.filter(schedule=schedule, status__in=RUN_OPEN).order_by("pk"))
    if schedule.overlap == Schedule.Overlap.SKIP and open_runs:
        return f"skipped: run {open_runs[0].pk} of this schedule has not ended"
    if schedule.overlap == Schedule.Overlap.CANCEL and open_runs:
        group = group_of_start(pipeline_id=schedule.pipeline, inputs=schedule.inputs)
        lock_starts(group, *(run.group for run in open_runs))
        for run in open_runs:
            cancel_superseded(run=run, because=f"superseded by the next run of schedule {schedule.name!r}")
    return ""


def _start(schedule: Schedule, *, user: User, key: str | None) -> Run:
    return start_run(
        pipeline_id=schedule.pipeline,
        inputs=schedule.inputs,
        model=schedule.model,
        user=user,
        idempotency_key=key,
        key_space=CLOCK if key else "",
        schedule=schedule,
    )


# --- What people see --------------------------------------------------------------------------------------------------
def schedules_seen_by(user: User | AnonymousUser) -> QuerySet[Schedule]:
    """The schedules that the person may see: all for a viewer, else those that they made."""
    if not user.is_authenticated:
        return Schedule.objects.none()
    rows = Schedule.objects.select_related("created_by", "entry__crontab").annotate(read_at=DatabaseClock())
    return rows if user.has_role(Role.VIEWER) else rows.filter(created_by=user)


def next_due(schedule: Schedule) -> datetime | None:
    """When the schedule starts its next run; None while it is disabled."""
    now: datetime | None = getattr(
        schedule, "read_at", None
    )  # of rows of a list: each would ask for the time otherwise
    return due_times(schedule.entry.crontab, now=now)[0] if schedule.is_enabled else None


def upcoming(cron: str, timezone: str, count: int = 5) -> list[datetime]:
    """The next times of such a schedule, in UTC; raises `UserError` when they are none."""
    return due_times(read_cron(cron, timezone), count)


# --- Parts ------------------------------------------------------------------------------------------------------------
def _check(wanted: Wanted) -> None:
    """Raise for a schedule that could not start a run now."""
    if not wanted.name.strip() or len(wanted.name) > LONGEST_NAME:
        raise UserError("This is no name.", details={"name": f"1 to {LONGEST_NAME} characters"})
    if wanted.overlap not in Schedule.Overlap.values:
        known = ", ".join(Schedule.Overlap.values)
        raise UserError(f"There is no such policy: {wanted.overlap!r}.", details={"overlap": f"one of {known}"})
    if len(json.dumps(wanted.inputs)) > MOST_INPUT_BYTES:
        raise UserError(f"The inputs are larger than {MOST_INPUT_BYTES} bytes.")
    pipeline = catalogue.find_pipeline(wanted.pipeline).pipeline
    try:
        inputs = resolve_inputs(pipeline, wanted.inputs)
    except InputsInvalid as exc:
        details = {f"inputs.{name}": text for name, text in exc.problems.items()}
        raise UserError("The inputs do not fit the pipeline.", details=details) from exc
    group_of(pipeline, inputs)
    catalogue.check_models(pipeline, catalogue.agents_of(pipeline), override=wanted.model)


def _columns(wanted: Wanted) -> dict[str, Any]:
    return {**asdict(wanted), "inputs": dict(wanted.inputs)}


def present_of(schedule: Schedule) -> Wanted:
    """What the schedule is now."""
    return Wanted(**{field.name: getattr(schedule, field.name) for field in fields(Wanted)})


def _owner_after(schedule: Schedule, wanted: Wanted, user: User) -> User:
    """Whose the schedule is after the change: theirs who changes it, unless it is only disabled."""
    present = present_of(schedule)
    if wanted in (present, replace(present, is_enabled=False)) or schedule.created_by == user:
        return schedule.created_by
    log.info(
        "schedule_taken_over",
        schedule=schedule.pk,
        owner=user.get_username(),
        before=schedule.created_by.get_username(),
    )
    return user


def _locked(schedule_id: int) -> Schedule:
    """The schedule, locked; raises `NotFound` when it was deleted meanwhile."""
    rows = Schedule.objects.select_for_update(of=("self",), no_key=True)
    found = rows.select_related("created_by", "entry__crontab").filter(pk=schedule_id).first()
    if found is None:
        raise NotFound("There is no such schedule any more.")
    return found


def _set_going(entry: PeriodicTask, *, is_enabled: bool) -> None:
    """Let beat read the entry anew, as if it had just been made: times that have passed are not made up for.

    `update_changed` comes last: beat compares its time with the one it saw, and another change may have come between.
    """
    entry.enabled, entry.last_run_at = is_enabled, None
    entry.save()
    PeriodicTasks.update_changed()


@contextmanager
def _name_is_free(name: str) -> Iterator[None]:
    try:
        yield
    except IntegrityError as exc:
        raise Conflict(f"There is a schedule {name!r} already.", details={"name": "is taken"}) from exc


def _told(schedule: Schedule, message: str) -> str:
    log.warning("schedule_not_started", schedule=schedule.pk, why=message)
    return message
