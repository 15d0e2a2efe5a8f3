"""Times of schedules: what is refused, when they come, and what a change of the clock does, in beat and in ours."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import takewhile
from zoneinfo import ZoneInfo

import pytest
from django_celery_beat.tzcrontab import TzAwareCrontab

from djinn.celery import app
from djinn.core.errors import UserError
from djinn.runs.cron import due_times, present_tick, read_cron, times_after

BERLIN, NEW_YORK = "Europe/Berlin", "America/New_York"
HOWEVER_LATE = timedelta(seconds=0.7)


class Beat(TzAwareCrontab):
    """Beat's schedule at a moment of our choosing."""

    moment = datetime(2026, 1, 1, tzinfo=UTC)

    def nowfunc(self) -> datetime:
        return self.moment.astimezone(self.tz)


def crontab(cron: str, zone: str) -> Beat:
    minute, hour, day, month, weekday = cron.split()
    return Beat(minute, hour, weekday, day, month, tz=ZoneInfo(zone), app=app)


def fired(cron: str, zone: str, start: datetime, hours: float) -> list[datetime]:
    """When beat starts it: it looks every 5 s at most, and never in time to the microsecond."""
    schedule, now, last, found = crontab(cron, zone), start, start, []
    while now < start + timedelta(hours=hours):
        schedule.moment = now
        is_due, seconds = schedule.is_due(last)
        if is_due:
            found.append(now.replace(second=0, microsecond=0))
            last = now
        now += timedelta(seconds=max(1.0, min(seconds, 300.0))) + HOWEVER_LATE
    return found


def ours(cron: str, zone: str, start: datetime, hours: float) -> list[datetime]:
    end = start + timedelta(hours=hours)
    return list(takewhile(lambda due: due < end, times_after(crontab(cron, zone), start)))


CHANGES = [
    # cron, zone, from (UTC), hours, times (UTC)
    ("30 2 * * *", BERLIN, "2026-03-28T12:00", 40, ["29 01:30", "30 00:30"]),  # 02:30 does not exist: 03:30
    ("0 * * * *", BERLIN, "2026-03-28T23:05", 4, ["29 00:00", "29 01:00", "29 02:00", "29 03:00"]),
    ("30 2 * * *", BERLIN, "2026-10-24T12:00", 40, ["25 00:30", "26 01:30"]),  # 02:30 comes twice: the first one
    ("0 * * * *", BERLIN, "2026-10-24T22:30", 4, ["24 23:00", "25 00:00", "25 02:00"]),
    ("30 2 * * *", NEW_YORK, "2026-03-07T12:00", 40, ["08 07:30"]),
    ("30 1 * * *", NEW_YORK, "2026-10-31T12:00", 40, ["01 05:30"]),
    ("0 9 * * mon", "Asia/Kolkata", "2026-10-24T12:00", 72, ["26 03:30"]),
    ("0 2 * * *", "Australia/Lord_Howe", "2026-10-03T06:00", 40, ["03 15:30", "04 15:00"]),  # half an hour
]


@pytest.mark.parametrize("compute", [ours, fired])
@pytest.mark.parametrize(("cron", "zone", "start", "hours", "times"), CHANGES)
def test_a_local_time_starts_one_run_a_day_where_clocks_are_changed(
    cron: str, zone: str, start: str, hours: float, times: list[str], compute: object
) -> None:
    found = compute(cron, zone, datetime.fromisoformat(start).replace(tzinfo=UTC), hours)  # type: ignore[operator]
    assert [f"{due:%d %H:%M}" for due in found] == times


def test_beat_does_not_make_up_for_what_was_missed_hours_ago() -> None:
    schedule = crontab("0 4 * * *", "UTC")
    schedule.moment = datetime(2026, 5, 2, 9, 0, tzinfo=UTC)
    assert schedule.is_due(datetime(2026, 5, 1, 4, 0, tzinfo=UTC)).is_due is False


def test_beat_makes_up_for_what_was_missed_just_now() -> None:
    schedule = crontab("0 4 * * *", "UTC")
    schedule.moment = datetime(2026, 5, 2, 4, 50, tzinfo=UTC)
    assert schedule.is_due(datetime(2026, 5, 1, 4, 0, tzinfo=UTC)).is_due is True


@pytest.mark.parametrize(
    "cron",
    ["", "* * * *", "* * * * * *", "@daily", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "* * * * 7",
     "a * * * *", "*/0 * * * *", "1,,2 * * * *", "-1 * * * *", "0 0 31 2 *", "0 0 L * *", "٣ * * * *",
     "0," * 100 + " * * * *", "* * * *\x00*", "1.5 * * * *"],
)  # fmt: skip
def test_what_is_no_cron_is_refused(cron: str) -> None:
    with pytest.raises(UserError) as caught:
        read_cron(cron, "UTC")
    assert list(caught.value.details) == ["cron"]


@pytest.mark.parametrize("zone", ["", "Berlin", "Europe/berlin", "../../etc/passwd", "+02:00", "x" * 1000, "\x00"])
def test_what_is_no_time_zone_is_refused(zone: str) -> None:
    with pytest.raises(UserError) as caught:
        read_cron("* * * * *", zone)
    assert list(caught.value.details) == ["timezone"]


@pytest.mark.django_db
@pytest.mark.parametrize("cron", ["* * * * *", "*/5 * * * mon-fri", "0 0 29 2 mon", "0 0 1 jan *", "  1  2 3 4 5 "])
def test_a_cron_has_times_to_come(cron: str) -> None:
    times = due_times(read_cron(cron, BERLIN), 3)
    assert times == sorted(set(times))
    assert times[0] > datetime.now(UTC) - timedelta(minutes=1)


@pytest.mark.django_db
def test_the_present_tick_is_the_last_time_that_has_come() -> None:
    tick = present_tick(read_cron("* * * * *", BERLIN))
    assert tick is not None
    assert timedelta(0) <= datetime.now(UTC) - tick < timedelta(minutes=2)


@pytest.mark.django_db
def test_there_is_no_present_tick_when_the_last_one_was_hours_ago() -> None:
    away = datetime.now(UTC) + timedelta(hours=12)
    assert present_tick(read_cron(f"0 {away.hour} * * *", "UTC")) is None
