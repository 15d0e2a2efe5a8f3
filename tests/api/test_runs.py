"""Runs over REST: started, listed, looked at, followed and cancelled, with good requests and bad ones."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as present
from django.db import transaction
from django.utils import timezone
from pytest_django import Settings
from rest_framework.test import APIClient

from djinn.accounts.models import User
from djinn.events.log import NewEvent, append
from djinn.runs.models import Run
from tests.api.conftest import Api
from tests.dashboard.make import end_run, end_step, make_call, make_run, make_step

BODY = {"pipeline": "echo", "inputs": {"word": "hello"}}
RUNS = "/api/v1/runs/"


def _post(client: APIClient, body: Any, **extra: Any) -> Any:
    return client.post(RUNS, body, content_type="application/json", **extra)


def _start(client: APIClient, body: Any = BODY, **extra: Any) -> Any:
    return _post(client, json.dumps(body), **extra)


def test_a_step_that_failed_says_so_in_a_line_and_where_its_log_is(api: Api) -> None:
    run = make_run(User.objects.create_user("owner"))
    row = make_step(run)
    end_step(row, "failed", reason="error", message="exit code 3: boom")
    (step,) = api("viewer").get(f"{RUNS}{run.pk}/").json()["step_runs"]
    assert step["message"] == "exit code 3: boom"
    assert step["log_url"] == f"{present.BASE_URL}/runs/{run.pk}/#step-run-{row.pk}"


def test_an_event_tells_when_it_happened_and_not_when_it_was_read(api: Api) -> None:
    row = make_step(make_run(User.objects.create_user("owner")))
    happened = timezone.now() - timedelta(minutes=10)
    with transaction.atomic():
        append(row.run.stream, [NewEvent("text", {"text": "x"}, row.execution_id, offset=0, happened_at=happened)])
    *_, event = api("viewer").get(f"{RUNS}{row.run_id}/events/").json()["events"]
    assert datetime.fromisoformat(event["at"]) == happened


def test_a_run_is_started_with_its_inputs_and_found_at_its_location(api: Api, pipelines: Path) -> None:
    client = api("operator")
    answer = _start(client)
    assert answer.status_code == 201
    run = client.get(answer.headers["Location"]).json()
    assert (run["status"], run["inputs"], run["created_by"]) == ("queued", {"word": "hello", "times": 1}, "operator")


def test_the_same_idempotency_key_starts_one_run(api: Api, pipelines: Path) -> None:
    client = api("operator")
    first, second = (_start(client, HTTP_IDEMPOTENCY_KEY="deploy-7").json()["id"] for _ in range(2))
    assert first == second
    assert Run.objects.count() == 1


def test_the_same_idempotency_key_with_other_inputs_is_a_conflict(api: Api, pipelines: Path) -> None:
    client = api("operator")
    bodies = [{"pipeline": "echo", "inputs": {"word": word}} for word in ("one", "one", "two")]
    answers = [_post(client, json.dumps(body), HTTP_IDEMPOTENCY_KEY="deploy-7") for body in bodies]
    assert [answer.status_code for answer in answers] == [201, 201, 409]
    assert answers[2].json()["error"]["details"] == {"Idempotency-Key": "was used for another request"}
    assert Run.objects.get().inputs["word"] == "one"


def test_the_key_of_another_person_starts_another_run(api: Api, pipelines: Path) -> None:
    ids = {_start(api(role), HTTP_IDEMPOTENCY_KEY="deploy-7").json()["id"] for role in ("operator", "admin")}
    assert len(ids) == 2


@pytest.mark.parametrize("key", ["k" * 201, "a\x00b", "a\x07b"])
def test_an_idempotency_key_that_cannot_be_kept_whole_is_refused(api: Api, pipelines: Path, key: str) -> None:
    answer = _start(api("operator"), HTTP_IDEMPOTENCY_KEY=key)
    assert answer.status_code == 400
    assert "Idempotency-Key" in answer.json()["error"]["details"]


BAD_BODIES = {
    "nothing": b"",
    "no JSON": b"{pipeline: echo}",
    "not UTF-8": b'{"pipeline": "\xff"}',
    "a list": b"[]",
    "a text": b'"echo"',
    "null": b"null",
    "no pipeline": b"{}",
    "pipeline is a number": b'{"pipeline": {}}',
    "pipeline too long": json.dumps({"pipeline": "x" * 101}).encode(),
    "pipeline with NUL": b'{"pipeline": "ec\\u0000ho"}',
    "pipeline with a lone surrogate": b'{"pipeline": "\\ud800"}',
    "inputs are a list": b'{"pipeline": "echo", "inputs": [1]}',
    "an input with NUL": b'{"pipeline": "echo", "inputs": {"word": "a\\u0000"}}',
    "an input with a lone surrogate": b'{"pipeline": "echo", "inputs": {"word": "\\udfff"}}',
    "a name of an input with NUL": b'{"pipeline": "echo", "inputs": {"\\u0000": 1}}',
    "a name of an input with a lone surrogate": b'{"pipeline": "echo", "inputs": {"\\ud800": 1}}',
    "NaN": b'{"pipeline": "echo", "inputs": {"word": NaN}}',
    "a number that is infinite": b'{"pipeline": "echo", "inputs": {"word": "a", "times": 1e999}}',
    "a huge number": b'{"pipeline": "echo", "inputs": {"word": "a", "times": ' + b"9" * 5000 + b"}}",
    "a model with NUL": b'{"pipeline": "echo", "inputs": {"word": "a"}, "model": "a/\\u0000"}',
    "deep": b'{"pipeline": "echo", "inputs": {"word": ' + b"[" * 60 + b"]" * 60 + b"}}",
    "very deep": b'{"pipeline": "echo", "inputs": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
}


@pytest.mark.parametrize("body", BAD_BODIES.values(), ids=BAD_BODIES.keys())
def test_a_bad_body_is_the_callers_to_mend_and_starts_nothing(api: Api, pipelines: Path, body: bytes) -> None:
    answer = _post(api("operator"), body)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]
    assert not Run.objects.exists()


def test_a_body_larger_than_allowed_is_refused(api: Api, pipelines: Path) -> None:
    word = "x" * present.DATA_UPLOAD_MAX_MEMORY_SIZE
    answer = _start(api("operator"), {"pipeline": "echo", "inputs": {"word": word}})
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")


def test_a_body_that_is_not_said_to_be_json_is_refused(api: Api, pipelines: Path) -> None:
    answer = api("operator").post(RUNS, "pipeline=echo", content_type="application/x-www-form-urlencoded")
    assert (answer.status_code, answer.json()["error"]["code"]) == (415, "unsupported_media_type")


def test_an_unknown_pipeline_is_answered_with_the_known_ones(api: Api, pipelines: Path) -> None:
    answer = _start(api("operator"), {"pipeline": "nope"})
    assert answer.status_code == 404
    assert "echo" in answer.json()["error"]["message"]


def test_a_broken_pipeline_is_answered_with_its_problems(api: Api, pipelines: Path) -> None:
    answer = _start(api("operator"), {"pipeline": "broken"})
    assert answer.status_code == 400
    assert "rum" in " ".join(answer.json()["error"]["details"].values())


@pytest.mark.parametrize(
    ("inputs", "wrong"),
    [({}, "word"), ({"word": "a", "times": "many"}, "times"), ({"word": "a", "colour": "red"}, "colour")],
)
def test_a_wrong_input_is_named(api: Api, pipelines: Path, inputs: dict[str, Any], wrong: str) -> None:
    answer = _start(api("operator"), {"pipeline": "echo", "inputs": inputs})
    assert answer.status_code == 400
    assert set(answer.json()["error"]["details"]) == {wrong}


def test_the_list_holds_what_the_person_may_see(api: Api, people: dict[str, User]) -> None:
    mine, other = make_run(people["none"]), make_run(people["operator"])
    seen = {role: [run["id"] for run in api(role).get(RUNS).json()["results"]] for role in ("none", "viewer")}
    assert seen == {"none": [mine.pk], "viewer": [other.pk, mine.pk]}


def test_the_list_is_filtered_by_status_and_pipeline(api: Api, people: dict[str, User]) -> None:
    make_run(pipeline="one")
    two = make_run(pipeline="two")
    end_run(make_run(pipeline="two"))
    found = api("viewer").get(RUNS, {"status": "queued", "pipeline": "two"}).json()["results"]
    assert [run["id"] for run in found] == [two.pk]


def test_pages_show_each_run_once_while_runs_are_added(api: Api, people: dict[str, User]) -> None:
    made = [make_run().pk for _ in range(5)]
    client, address, seen = api("viewer"), RUNS + "?page_size=2", []
    while address:
        page = client.get(address).json()
        seen += [run["id"] for run in page["results"]]
        address = page["next"]
        make_run()
    assert seen == made[::-1]


BAD_QUERIES = [
    "?status=sleeping",
    "?pipeline=%00",
    "?cursor=nonsense",
    "?cursor=cD1hYmM%3D",  # p=abc
    "?cursor=cD05OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk5OTk%3D",  # p=99999999999999999999999999999
    "?cursor=cD0lMDA%3D",  # p=NUL
]


@pytest.mark.parametrize("query", BAD_QUERIES)
def test_a_bad_query_of_the_list_is_refused(api: Api, people: dict[str, User], query: str) -> None:
    make_run()
    answer = api("viewer").get(RUNS + query)
    assert answer.status_code in {400, 404}
    assert answer.json()["error"]["message"]


@pytest.mark.parametrize("number", ["0", "999999999999999999", "9" * 30, "-1", "1.5", "x", "%00"])
@pytest.mark.parametrize("end", ["", "cancel/", "events/"])
def test_a_run_that_cannot_be_is_not_found(api: Api, people: dict[str, User], number: str, end: str) -> None:
    client = api("operator")
    ask = client.post if end == "cancel/" else client.get
    answer = ask(f"{RUNS}{number}/{end}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


@pytest.mark.parametrize("end", ["", "events/", "cancel/"])
def test_the_run_of_another_person_is_not_found_by_an_outsider(api: Api, people: dict[str, User], end: str) -> None:
    people["none"].role = "none"
    run = make_run(people["operator"])
    answer = api("none").get(f"{RUNS}{run.pk}/{end}")
    assert answer.status_code == (405 if end == "cancel/" else 404)


def test_a_run_shows_its_steps_and_its_bill(api: Api, people: dict[str, User]) -> None:
    step = make_step(make_run(people["operator"]))
    make_call(step, input_tokens=10, output_tokens=3, cost="0.25")
    run = api("viewer").get(f"{RUNS}{step.run_id}/").json()
    assert [(row["step"], row["status"], row["cost_usd"]) for row in run["step_runs"]] == [
        ("build", "running", "0.250000")
    ]
    assert (run["input_tokens"], run["output_tokens"], run["cost_usd"]) == (10, 3, "0.250000")


def test_an_unknown_price_is_shown_as_unknown(api: Api, people: dict[str, User]) -> None:
    step = make_step(make_run())
    make_call(step, cost="0.25")
    make_call(step, cost=None)
    assert api("viewer").get(f"{RUNS}{step.run_id}/").json()["cost_usd"] is None


def test_a_run_of_the_command_line_is_shown_without_a_person(api: Api, people: dict[str, User]) -> None:
    run = make_run(None)
    client = api("viewer")
    assert client.get(f"{RUNS}{run.pk}/").json()["created_by"] is None
    assert client.get(RUNS).json()["results"][0]["created_by"] is None


def test_events_are_read_behind_a_cursor_a_page_at_a_time(api: Api, people: dict[str, User]) -> None:
    run = make_run()
    with transaction.atomic():
        append(run.stream, [NewEvent("note", {"n": n}) for n in range(9)])
    page = api("viewer").get(f"{RUNS}{run.pk}/events/", {"after": 4, "limit": 3}).json()
    assert [event["seq"] for event in page["events"]] == [5, 6, 7]
    assert page["last_seq"] == 10


@pytest.mark.parametrize("query", [{"after": "-1"}, {"after": "x"}, {"after": "9" * 30}, {"limit": "0"}, {"limit": "x"},
                                   {"limit": "1001"}, {"limit": "9" * 30}, {"after": "²"}, {"limit": "²"}])  # fmt: skip
def test_a_bad_cursor_or_limit_is_refused(api: Api, people: dict[str, User], query: dict[str, str]) -> None:
    answer = api("viewer").get(f"{RUNS}{make_run().pk}/events/", query)
    assert answer.status_code == 400
    assert set(answer.json()["error"]["details"]) == set(query)


def test_an_error_of_the_event_stream_is_json(api: Api, people: dict[str, User]) -> None:
    answer = api("viewer").get(
        f"{RUNS}{make_run().pk}/events/", HTTP_ACCEPT="text/event-stream", HTTP_LAST_EVENT_ID="x"
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid")


def test_cancelling_stores_the_wish_and_again_is_no_error(api: Api, people: dict[str, User]) -> None:
    run = make_run()
    client = api("operator")
    first, second = (client.post(f"{RUNS}{run.pk}/cancel/") for _ in range(2))
    assert (first.status_code, second.status_code) == (202, 202)
    assert first.json()["cancel_requested_at"] == second.json()["cancel_requested_at"] is not None


def test_a_run_that_has_ended_cannot_be_cancelled(api: Api, people: dict[str, User]) -> None:
    run = make_run()
    end_run(run)
    answer = api("operator").post(f"{RUNS}{run.pk}/cancel/")
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "conflict")


def test_a_session_without_its_csrf_token_changes_nothing(people: dict[str, User], pipelines: Path) -> None:
    client = APIClient(enforce_csrf_checks=True)
    client.force_login(people["operator"])
    assert _start(client).status_code == 403
    assert not Run.objects.exists()


@pytest.mark.parametrize("header", ["Bearer djinn_wrong", "Bearer x", "bearer ", "Bearer djinn_\xff"])
def test_a_token_that_nobody_has_is_refused(people: dict[str, User], header: str) -> None:
    answer = APIClient().get(RUNS, HTTP_AUTHORIZATION=header)
    assert (answer.status_code, answer.json()["error"]["code"]) == (401, "authentication_failed")
    assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_an_error_of_ours_tells_a_reference_and_nothing_else(api: Api, settings: Settings) -> None:
    settings.PIPELINES_DIRECTORY = None
    answer = api("viewer").get("/api/v1/pipelines/")
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["details"]) == (500, "failed", {})
    assert len(error["reference"]) == 12
    assert "NoneType" not in error["message"]


def test_the_catalogue_tells_pipelines_and_problems(api: Api, pipelines: Path) -> None:
    found = api("viewer").get("/api/v1/pipelines/").json()
    assert [(p["id"], p["steps"], [i["name"] for i in p["inputs"]]) for p in found["pipelines"]] == [
        ("echo", ["SAY"], ["word", "times"])
    ]
    assert list(found["problems"]) == ["broken.yaml"]
