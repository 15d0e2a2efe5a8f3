"""Times of schedules, as beat computes them: Celery's crontab on the clock of a time zone.

Where clocks are changed, a local time that happens twice starts one run, the first time; one that does not happen
starts one an hour later. So each named local time starts one run a day. Unlike crontab(5), a day must fit both the day
of the month and the day of the week.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo, available_timezones

from celery.schedules import ParseException
from django.core.exceptions import ValidationError
from django.db import connection
from django_celery_beat.models import CrontabSchedule
from django_celery_beat.tzcrontab import TzAwareCrontab

from djinn.core.errors import UserError

FIELDS = ("minute", "hour", "day_of_month", "month_of_year", "day_of_week")
LONGEST_CRON = 200
LOOK_BACK = (timedelta(minutes=15), timedelta(hours=5))
"""How far back the present tick is looked for: near first, then far enough to see over a change of the clock."""


def read_cron(text: str, zone: str) -> CrontabSchedule:
    """The unsaved row of these times; raises `UserError` when they are none, or never come."""
    parts = text.split()
    if len(text) > LONGEST_CRON or len(parts) != len(FIELDS) or not text.isascii():
        raise _wrong("cron", "five fields: minute, hour, day of the month, month, day of the week")
    if zone not in available_timezones():
        raise _wrong("timezone", f"{zone[:64]!r} is no name of the IANA time zone database, such as Europe/Berlin")
    row = CrontabSchedule(**dict(zip(FIELDS, parts, strict=True)), timezone=ZoneInfo(zone))
    try:
        crontab = _crontab(row)
        row.full_clean()
        next(times_after(crontab, datetime.now(UTC)))
    except ValidationError as exc:
        raise _wrong("cron", " ".join(exc.messages)) from exc
    except (ValueError, TypeError, RuntimeError, OverflowError, ParseException) as exc:
        raise _wrong("cron", str(exc)) from exc
    return row


def due_times(row: CrontabSchedule, count: int = 1, *, now: datetime | None = None) -> list[datetime]:
    """When it is due next, in UTC, by the database's clock."""
    return list(islice(times_after(_crontab(row), now or _now()), count))


def present_tick(row: CrontabSchedule) -> datetime | None:
    """The last time that it was due, in UTC, by the database's clock; None when that was hours ago."""
    now, crontab = _now(), _crontab(row)
    for span in LOOK_BACK:
        tick = None
        for due in times_after(crontab, now - span):
            if due > now:
                break
            tick = due
        if tick is not None:
            return tick
    return None


def times_after(crontab: TzAwareCrontab, moment: datetime) -> Iterator[datetime]:
    """Every time after the moment, in UTC and in order."""
    while True:
        start, delta, _ = crontab.remaining_delta(moment.astimezone(crontab.tz))
        due = (start + delta).astimezone(UTC)
        if due <= moment:
            raise RuntimeError(f"the time after {moment} is {due}")
        yield due
        moment = due


def _crontab(row: CrontabSchedule) -> TzAwareCrontab:
    fields = {name: getattr(row, name) for name in FIELDS}
    return TzAwareCrontab(**fields, tz=row.timezone)


def _now() -> datetime:
    with connection.cursor() as cursor:
        cursor.execute("SELECT clock_timestamp()")
        now: datetime = cursor.fetchone()[0]
    return now.astimezone(UTC)


def _wrong(field: str, why: str) -> UserError:
    return UserError("These are no times at which runs can start.", details={field: why})
