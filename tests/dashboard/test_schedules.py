"""The pages of schedules and workers, and what the start pages tell of a pipeline."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path

import pytest
from django.utils import timezone

from djinn.accounts.models import User
from djinn.core.models import WorkerBeat
from djinn.runs.models import Run, Schedule
from djinn.runs.schedules import Wanted, create_schedule
from tests.dashboard.make import Browser, make_run

pytestmark = pytest.mark.django_db

PIPELINE = """\
name: Nightly
priority: 5
concurrency: {group: "night {{ who }}", limit: 2, policy: reject}
inputs:
  who: {type: string, default: Ada}
  files: {type: list, default: [a, "b"]}
  shape: {type: json, default: {"on": true}}
steps:
  - id: sweep
    run: echo sweep
  - id: GATE
    approve: {by: [operator, ada], count: 2}
"""


@pytest.fixture(autouse=True)
def nightly(pipelines: Path) -> Path:
    file = pipelines / "nightly.yaml"
    file.write_text(PIPELINE)
    return file


@pytest.fixture
def schedule(operator: User) -> Schedule:
    return create_schedule(user=operator, wanted=Wanted("daily", "nightly", "0 6 * * *", {"who": "Bob"}))


def filled(**fields: str) -> dict[str, str]:
    form = {
        "name": "daily", "cron": "0 6 * * *", "timezone": "Europe/Berlin", "overlap": "queue", "is_enabled": "on",
        "input-who": "Bob", "input-files": '["x"]', "input-shape": "{}", "model": "",
    }  # fmt: skip
    return {**form, **fields}


def test_a_schedule_is_made_with_typed_inputs(browse: Browser, operator: User) -> None:
    answer = browse(operator).post("/schedules/new/nightly/", filled())
    made = Schedule.objects.get()
    assert answer.headers["Location"] == "/schedules/"
    assert (made.cron, made.timezone, made.overlap, made.is_enabled) == ("0 6 * * *", "Europe/Berlin", "queue", True)
    assert made.inputs == {"who": "Bob", "files": '["x"]', "shape": "{}"}


@pytest.mark.parametrize(
    ("field", "value"),
    [("cron", "61 * * * *"), ("timezone", "Mars"), ("name", ""), ("overlap", "x"), ("input-files", "{}")],
)
def test_what_is_wrong_is_told_at_its_field(browse: Browser, operator: User, field: str, value: str) -> None:
    answer = browse(operator).post("/schedules/new/nightly/", filled(**{field: value}))
    assert (answer.status_code, f'id="id_{field}_error"' in answer.content.decode()) == (400, True)
    assert not Schedule.objects.exists()


def test_a_name_that_is_taken_is_told(browse: Browser, operator: User, schedule: Schedule) -> None:
    answer = browse(operator).post("/schedules/new/nightly/", filled())
    assert (answer.status_code, "is taken" in answer.content.decode()) == (400, True)


def test_the_form_begins_with_what_the_schedule_is(browse: Browser, operator: User, schedule: Schedule) -> None:
    page = browse(operator).get(f"/schedules/{schedule.pk}/").content.decode()
    values = dict(re.findall(r'<input type="text" name="([^"]*)" value="([^"]*)"', page))
    assert (values["name"], values["cron"], values["input-who"]) == ("daily", "0 6 * * *", "Bob")
    assert "The next times" in page


def test_a_schedule_is_changed(browse: Browser, operator: User, schedule: Schedule) -> None:
    data = filled(cron="30 7 * * *")
    del data["is_enabled"]
    browse(operator).post(f"/schedules/{schedule.pk}/", data)
    schedule.refresh_from_db()
    assert (schedule.cron, schedule.is_enabled) == ("30 7 * * *", False)


@pytest.mark.parametrize(("to", "is_enabled"), [("on", True), ("off", False)])
def test_a_schedule_is_enabled_and_disabled(
    browse: Browser, operator: User, schedule: Schedule, to: str, is_enabled: bool
) -> None:
    browse(operator).post(f"/schedules/{schedule.pk}/enable/", {"to": to})
    schedule.refresh_from_db()
    assert schedule.is_enabled is is_enabled


def test_a_schedule_is_deleted_and_its_runs_stay(browse: Browser, operator: User, schedule: Schedule) -> None:
    make_run(schedule=schedule)
    browse(operator).post(f"/schedules/{schedule.pk}/delete/")
    assert (Schedule.objects.count(), Run.objects.count()) == (0, 1)


def test_a_run_is_started_now_and_a_second_one_is_refused_with_a_reason(
    browse: Browser, operator: User, schedule: Schedule
) -> None:
    client = browse(operator)
    first = client.post(f"/schedules/{schedule.pk}/start/")
    page = client.post(f"/schedules/{schedule.pk}/start/", follow=True).content.decode()
    assert first.headers["Location"] == f"/runs/{Run.objects.get().pk}/"
    assert "skipped: run" in page


def test_the_list_tells_next_time_last_run_and_the_last_message(
    browse: Browser, viewer: User, schedule: Schedule
) -> None:
    run = make_run(schedule=schedule)
    Schedule.objects.update(last_message="skipped: <b>busy")
    page = browse(viewer).get("/schedules/").content.decode()
    assert re.search(r'data-label="Next"><time datetime="[0-9-]+T06:00:00', page)
    assert [text for text in (f'href="/runs/{run.pk}/"', "skipped: &lt;b&gt;busy") if text not in page] == []


def test_a_viewer_is_offered_nothing_and_an_outsider_sees_nothing(
    browse: Browser, viewer: User, outsider: User, schedule: Schedule
) -> None:
    pages = [browse(user).get("/schedules/").content.decode() for user in (viewer, outsider)]
    assert ["daily" in page for page in pages] == [True, False]
    assert not any(f"/schedules/{schedule.pk}/" in page for page in pages)


@pytest.mark.parametrize("path", ["/start/", "/start/nightly/", "/schedules/new/nightly/"])
def test_what_a_pipeline_waits_for_is_told_before_it_starts(browse: Browser, operator: User, path: str) -> None:
    page = browse(operator).get(path).content.decode()
    wanted = ["priority 5", "<code>night {{ who }}</code>, 2 at once, then reject", "2 of operator or ada approve"]
    assert [text for text in wanted if text not in page] == []


def test_the_form_shows_data_as_json_that_can_be_sent_as_it_is(browse: Browser, operator: User) -> None:
    client = browse(operator)
    page = client.get("/start/nightly/").content.decode()
    shown = [text.replace("&quot;", '"') for text in re.findall(r"<textarea[^>]*>\s*([^<]*)</textarea>", page)]
    assert shown == ['["a", "b"]', '{"on": true}']
    client.post("/start/nightly/", {"input-who": "A", "input-files": shown[0], "input-shape": shown[1], "nonce": "n"})
    assert Run.objects.get().inputs == {"who": "A", "files": ["a", "b"], "shape": {"on": True}}


def test_the_page_of_workers_tells_who_lives_and_who_is_silent(browse: Browser, viewer: User) -> None:
    now = timezone.now()
    WorkerBeat.objects.create(worker="control@one", kind="control", host="one", ran_at=now)
    WorkerBeat.objects.create(worker="agents@one", kind="agents", host="one", ran_at=now - timedelta(minutes=5))
    page = browse(viewer).get("/workers/").content.decode()
    assert re.findall(r'data-status="(alive|silent)"', page) == ["silent", "alive"]
    assert "no agents worker has run a canary task" in page


def test_an_outsider_does_not_see_the_workers(browse: Browser, outsider: User) -> None:
    assert browse(outsider).get("/workers/").status_code == 403
