"""Schedules over the API: made, changed, started, deleted, and what is refused."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from django.db import connection, transaction
from rest_framework.test import APIClient

from djinn.accounts.models import User
from djinn.runs.models import Run, Schedule
from tests.api.conftest import Api, make_schedule
from tests.stack.live import wait_for

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("pipelines")]

NEW = {"name": "nightly", "pipeline": "echo", "cron": "30 2 * * *", "timezone": "Europe/Berlin",
       "inputs": {"word": "hi"}, "overlap": "cancel"}  # fmt: skip


def send(client: APIClient, method: str, path: str, body: Any = None) -> Any:
    return client.generic(method, f"/api/v1/{path}", json.dumps(body), content_type="application/json")


def test_an_operator_makes_a_schedule_in_their_own_name(api: Api, people: dict[str, User]) -> None:
    answer = send(api("operator"), "POST", "schedules/", NEW)
    schedule = Schedule.objects.get()
    assert (answer.status_code, answer["Location"]) == (201, f"/api/v1/schedules/{schedule.pk}/")
    assert schedule.created_by == people["operator"]
    assert {name: answer.json()[name] for name in NEW} == NEW
    assert answer.json()["next_due"].endswith("Z")


def test_what_is_left_out_of_a_change_stays(api: Api, people: dict[str, User]) -> None:
    schedule = make_schedule(people["operator"])
    answer = send(api("operator"), "PATCH", f"schedules/{schedule.pk}/", {"is_enabled": False, "cron": "5 5 * * *"})
    found = answer.json()
    assert (answer.status_code, found["is_enabled"], found["cron"], found["next_due"]) == (
        200,
        False,
        "5 5 * * *",
        None,
    )
    assert (found["name"], found["inputs"]) == ("daily", {"word": "hello"})


@pytest.mark.django_db(transaction=True)
def test_two_changes_at_once_of_different_things_are_both_kept(api: Api, people: dict[str, User]) -> None:
    """Both have read the schedule before either has stored."""
    schedule = make_schedule(people["operator"])
    changes: list[dict[str, Any]] = [{"cron": "5 5 * * *"}, {"inputs": {"word": "bye"}}, {"overlap": "queue"}]
    clients = [api("operator") for _ in changes]
    statuses: list[int] = []

    def change(client: APIClient, body: dict[str, Any]) -> None:
        statuses.append(send(client, "PATCH", f"schedules/{schedule.pk}/", body).status_code)
        connection.close()

    threads = [threading.Thread(target=change, args=pair) for pair in zip(clients, changes, strict=True)]
    with transaction.atomic():
        Schedule.objects.select_for_update().get(pk=schedule.pk)
        for thread in threads:
            thread.start()
        wait_for(lambda: waiting_for_locks() == len(changes), why="all three at the lock")
    for thread in threads:
        thread.join(20)
    schedule.refresh_from_db()
    assert statuses == [200, 200, 200]
    assert (schedule.cron, schedule.inputs["word"], schedule.overlap) == ("5 5 * * *", "bye", "queue")


def waiting_for_locks() -> int:
    """Sessions of this database that wait for a lock."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_stat_clear_snapshot()")
        cursor.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        return int(cursor.fetchone()[0])


def test_another_operator_who_changes_a_schedule_becomes_its_owner(api: Api, people: dict[str, User]) -> None:
    schedule = make_schedule(people["admin"])
    disabled = send(api("operator"), "PATCH", f"schedules/{schedule.pk}/", {"is_enabled": False})
    changed = send(api("operator"), "PATCH", f"schedules/{schedule.pk}/", {"inputs": {"word": "mine"}})
    assert [answer.json()["created_by"] for answer in (disabled, changed)] == ["admin", "operator"]


@pytest.mark.parametrize(
    ("wrong", "status", "field"),
    [
        ({"cron": "* * *"}, 400, "cron"),
        ({"cron": "99 * * * *"}, 400, "cron"),
        ({"timezone": "Nowhere"}, 400, "timezone"),
        ({"overlap": "maybe"}, 400, "overlap"),
        ({"inputs": {"word": "a", "times": "many"}}, 400, "inputs.times"),
        ({"inputs": {}}, 400, "inputs.word"),
        ({"inputs": []}, 400, "inputs"),
        ({"name": ""}, 400, "name"),
        ({"name": "x" * 101}, 400, "name"),
        ({"pipeline": "broken"}, 400, None),
        ({"pipeline": "none"}, 404, None),
        ({"name": "daily"}, 409, "name"),
    ],
)
@pytest.mark.parametrize("method", ["POST", "PATCH"])
@pytest.mark.django_db(transaction=True)
def test_a_wrong_schedule_is_refused_and_changes_nothing(
    api: Api, people: dict[str, User], method: str, wrong: dict[str, Any], status: int, field: str | None
) -> None:
    make_schedule(people["operator"])
    path = "schedules/"
    if method == "PATCH":
        path += f"{send(api('operator'), 'POST', path, NEW).json()['id']}/"
    before = list(Schedule.objects.values_list())
    answer = send(api("operator"), method, path, {**NEW, **wrong})
    details = answer.json()["error"]["details"]
    assert (answer.status_code, list(Schedule.objects.values_list())) == (status, before)
    assert field is None or list(details) == [field]


def test_a_start_by_hand_is_a_run_of_the_schedule(api: Api, people: dict[str, User]) -> None:
    schedule = make_schedule(people["admin"])
    answer = send(api("operator"), "POST", f"schedules/{schedule.pk}/start/")
    run = Run.objects.get()
    assert (answer.status_code, answer.json()["id"], answer["Location"]) == (201, run.pk, f"/api/v1/runs/{run.pk}/")
    assert (run.schedule, run.created_by) == (schedule, people["operator"])


def test_a_second_start_by_hand_while_the_first_is_open_is_a_conflict(api: Api, people: dict[str, User]) -> None:
    path = f"schedules/{make_schedule(people['operator']).pk}/start/"
    assert [send(api("operator"), "POST", path).status_code for _ in range(2)] == [201, 409]


def test_an_outsider_sees_only_their_own(api: Api, people: dict[str, User]) -> None:
    make_schedule(people["none"])
    assert [len(api(role).get("/api/v1/schedules/").json()["results"]) for role in ("none", "viewer")] == [1, 1]
    Schedule.objects.update(created_by=people["operator"])
    assert [len(api(role).get("/api/v1/schedules/").json()["results"]) for role in ("none", "viewer")] == [0, 1]


def test_a_deleted_schedule_is_gone(api: Api, people: dict[str, User]) -> None:
    path = f"schedules/{make_schedule(people['operator']).pk}/"
    assert [send(api("operator"), "DELETE", path).status_code for _ in range(2)] == [204, 404]


@pytest.mark.parametrize(("priority", "status"), [(100, 201), (-100, 201), (None, 201), (101, 400), ("high", 400)])
def test_a_start_may_have_a_priority(api: Api, priority: Any, status: int, pipelines: Path) -> None:
    body = {"pipeline": "echo", "inputs": {"word": "a"}, "priority": priority}
    assert send(api("operator"), "POST", "runs/", body).status_code == status
    assert list(Run.objects.values_list("priority", flat=True)) == ([priority or 0] if status == 201 else [])
