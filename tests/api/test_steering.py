"""Approvals, operator verbs and what belongs to a run, over REST, with good requests and bad ones."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
from rest_framework.test import APIClient

from djinn.accounts.models import User
from djinn.executions.models import Artifact
from djinn.runs.models import Approval, Decision, Intent, Note, Run, StepRun
from tests.api.conftest import Api
from tests.make import begin, failed, played, step, succeeded, told, work

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("home")]

BUILD = step("BUILD", played(finished=succeeded(RESULT="good")), outputs=["RESULT"])
GATE: dict[str, Any] = {"id": "GATE", "approve": {"show": ["diff", "RESULT"]}, "input": "Ship {{ RESULT }}?"}
BAD = step("TEST", played(finished=failed()))
RUNS, APPROVALS = "/api/v1/runs/", "/api/v1/approvals/"


def post(client: APIClient, path: str, body: Any = None, **extra: Any) -> Any:
    return client.post(path, body, format="json", **extra)


def asked(**fields: Any) -> Approval:
    work(begin(BUILD, {**GATE, **fields}))
    return Approval.objects.select_related("step_run__run").get()


def state() -> Any:
    """Everything that a refusal must leave as it was."""
    models = (Run, StepRun, Approval, Decision, Intent, Note)
    rows = [list(model.objects.order_by("pk").values()) for model in models]  # type: ignore[attr-defined]
    return [*rows, [told(run) for run in Run.objects.order_by("pk")]]


# --- Approvals --------------------------------------------------------------------------------------------------------
def test_an_approval_is_listed_looked_at_and_decided(api: Api) -> None:
    approval, client = asked(), api("operator")
    (listed,) = client.get(APPROVALS, {"status": "open"}).json()["results"]
    assert (listed["id"], listed["step"], listed["question"]) == (approval.pk, "GATE", "Ship good?")
    assert "shown" not in listed
    found = client.get(f"{APPROVALS}{approval.pk}/").json()
    assert (found["shown"], found["may_decide"]) == ({"outputs": {"RESULT": "good"}, "diff": ""}, True)
    body = {"verdict": "approve", "digest": found["digest"], "comment": "fine"}
    answer = post(client, f"{APPROVALS}{approval.pk}/decide/", body)
    assert (answer.status_code, answer.json()["status"]) == (200, "approved")
    (decision,) = answer.json()["decisions"]
    assert (decision["user"], decision["verdict"], decision["comment"]) == ("operator", "approve", "fine")
    assert client.get(APPROVALS, {"status": "open"}).json()["results"] == []
    assert work(approval.step_run.run).status == "succeeded"


def test_what_waits_for_people_stands_in_the_run(api: Api) -> None:
    approval, client = asked(), api("viewer")
    address = f"{RUNS}{approval.step_run.run_id}/"
    assert [one["id"] for one in client.get(address).json()["approvals"]] == [approval.pk]
    assert [one["status"] for one in client.get(f"{address}approvals/").json()] == ["open"]


@pytest.mark.parametrize(("role", "status"), [("nobody", 401), ("none", 404), ("viewer", 403)])
def test_a_decision_of_somebody_who_may_not_changes_nothing(api: Api, role: str, status: int) -> None:
    approval, client = asked(), api(role)
    before = state()
    body = {"verdict": "approve", "digest": approval.digest}
    assert post(client, f"{APPROVALS}{approval.pk}/decide/", body).status_code == status
    assert state() == before


def test_the_owner_of_a_run_sees_its_approval_and_decides_when_named(api: Api, people: dict[str, User]) -> None:
    approval, client = asked(approve={"by": ["none"]}), api("none")
    Run.objects.update(created_by=people["none"])
    assert client.get(f"{APPROVALS}{approval.pk}/").json()["may_decide"] is True
    body = {"verdict": "approve", "digest": approval.digest}
    assert post(client, f"{APPROVALS}{approval.pk}/decide/", body).status_code == 200


def test_a_second_decision_of_the_same_person_is_a_conflict(api: Api) -> None:
    approval, client = asked(approve={"count": 2}), api("operator")
    body = {"verdict": "approve", "digest": approval.digest}
    assert post(client, f"{APPROVALS}{approval.pk}/decide/", body).status_code == 200
    before = state()
    answer = post(client, f"{APPROVALS}{approval.pk}/decide/", body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (409, "conflict")
    assert state() == before


BODIES: dict[str, tuple[Any, int]] = {
    "nothing": ({}, 400),
    "no digest": ({"verdict": "approve"}, 400),
    "an unknown verdict": ({"verdict": "maybe", "digest": "0" * 64}, 400),
    "a long comment": ({"verdict": "approve", "digest": "0" * 64, "comment": "x" * 4001}, 400),
    "another digest": ({"verdict": "approve", "digest": "0" * 64}, 409),
    "a list": ([], 400),
}


@pytest.mark.parametrize("name", BODIES)
def test_a_bad_decision_changes_nothing(api: Api, name: str) -> None:
    body, status = BODIES[name]
    approval, client = asked(), api("operator")
    before = state()
    assert post(client, f"{APPROVALS}{approval.pk}/decide/", body).status_code == status
    assert state() == before


# --- Verbs ------------------------------------------------------------------------------------------------------------
def test_a_run_is_paused_and_resumed(api: Api) -> None:
    run, client = begin(BUILD), api("operator")
    first, second = (post(client, f"{RUNS}{run.pk}/{verb}/") for verb in ("pause", "resume"))
    assert (first.status_code, first.json()["paused_at"] is not None) == (202, True)
    assert (second.status_code, second.json()["paused_at"]) == (202, None)
    told_by = [(one["verb"], one["by"]) for one in client.get(f"{RUNS}{run.pk}/intents/").json()]
    assert told_by == [("pause", "operator"), ("resume", "operator")]


def test_context_is_added(api: Api, settings: Any) -> None:
    settings.DEFAULT_MODEL = "scripted/actor"
    run = begin(BUILD, {"id": "WRITE", "agent": "engineer", "input": "write"})
    answer = post(api("operator"), f"{RUNS}{run.pk}/notes/", {"step": "WRITE", "text": " mind\nthe gap "})
    assert answer.status_code == 201
    assert (answer.json()["text"], answer.json()["created_by"]) == (" mind\nthe gap ", "operator")


def test_a_failed_run_is_retried_once_for_one_key(api: Api) -> None:
    run, client = work(begin(BUILD, BAD)), api("operator")
    first, second = (
        post(client, f"{RUNS}{run.pk}/retry/", headers={"Idempotency-Key": "k"}).json()["id"] for _ in range(2)
    )
    assert first == second
    found = client.get(f"{RUNS}{first}/").json()
    assert (found["continues"], [row["step"] for row in found["step_runs"]]) == (run.pk, ["BUILD"])
    assert found["step_runs"][0]["reused_from"] == run.step_runs.get(step="BUILD").pk


def test_a_run_begins_again_at_a_step(api: Api) -> None:
    run = work(begin(BUILD, step("SHIP")))
    answer = post(api("operator"), f"{RUNS}{run.pk}/rerun/", {"step": "SHIP"})
    assert (answer.status_code, [row["step"] for row in answer.json()["step_runs"]]) == (201, ["BUILD"])
    assert answer.headers["Location"] == f"/api/v1/runs/{answer.json()['id']}/"


def test_a_run_is_restarted_with_other_inputs(api: Api) -> None:
    inputs = {"word": {"type": "string", "default": "a"}}
    run = work(begin(BUILD, inputs=inputs))
    answer = post(api("operator"), f"{RUNS}{run.pk}/restart/", {"inputs": {"word": "b"}})
    assert (answer.status_code, answer.json()["inputs"], answer.json()["step_runs"]) == (201, {"word": "b"}, [])


def test_a_run_is_restarted_with_another_model(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJINN_PROVIDERS_WITH_KEYS", "openai")
    run = work(begin(BUILD))
    answer = post(api("operator"), f"{RUNS}{run.pk}/restart/", {"model": "openai/gpt-5"})
    assert (answer.status_code, Run.objects.get(continues=run).model) == (201, "openai/gpt-5")


def test_many_runs_are_cancelled_and_retried(api: Api) -> None:
    lost, still_open, client = work(begin(BAD)), begin(BUILD), api("operator")
    body = {"ids": [lost.pk, still_open.pk, 10**12]}
    cancelled = post(client, f"{RUNS}cancel/", body)
    assert [(one["run"], one["code"]) for one in cancelled.json()["results"]] == [
        (None, "conflict"), (still_open.pk, ""), (None, "not_found")
    ]  # fmt: skip
    retried = post(client, f"{RUNS}retry/", body)
    assert [one["code"] for one in retried.json()["results"]] == ["", "conflict", "not_found"]


VERBS: dict[str, tuple[str, Any, int]] = {
    "re-run without a step": ("{run}/rerun/", {}, 400),
    "re-run of an unknown step": ("{run}/rerun/", {"step": "X"}, 400),
    "re-run of a step that never ran": ("{run}/rerun/", {"step": "SHIP"}, 409),
    "re-run of no visit": ("{run}/rerun/", {"step": "BUILD", "visit": 0}, 400),
    "re-run of a visit beyond all numbers": ("{run}/rerun/", {"step": "BUILD", "visit": 10**30}, 400),
    "retry of an open run": ("{run}/retry/", None, 409),
    "restart of an open run": ("{run}/restart/", {}, 409),
    "inputs that are no mapping": ("{run}/restart/", {"inputs": []}, 400),
    "context without text": ("{run}/notes/", {"step": "SHIP"}, 400),
    "context for nobody": ("{run}/notes/", {"text": "x"}, 400),
    "context for a script": ("{run}/notes/", {"text": "x", "step": "SHIP"}, 400),
    "context that is too long": ("{run}/notes/", {"text": "x" * 20_001, "step": "SHIP"}, 400),
    "no runs": ("cancel/", {"ids": []}, 400),
    "too many runs": ("retry/", {"ids": list(range(1, 300))}, 400),
    "runs that are no numbers": ("cancel/", {"ids": ["x"]}, 400),
    "a run beyond all numbers": ("cancel/", {"ids": [10**30]}, 400),
    "an unknown run": ("999999/pause/", None, 404),
}


@pytest.mark.parametrize("name", VERBS)
def test_a_bad_request_changes_nothing(api: Api, name: str) -> None:
    path, body, status = VERBS[name]
    run, client = work(begin(BUILD, GATE, step("SHIP"))), api("operator")
    before = state()
    assert post(client, RUNS + path.format(run=run.pk), body).status_code == status
    assert state() == before


# --- Parts ------------------------------------------------------------------------------------------------------------
def test_a_run_explains_what_it_waits_for(api: Api) -> None:
    run = work(begin(BUILD, GATE, step("SHIP")))
    found = {one["step"]: one for one in api("viewer").get(f"{RUNS}{run.pk}/explain/").json()}
    assert [one["kind"] for one in found["GATE"]["blocked_by"]] == ["approval"]
    assert [(one["kind"], one["step"]) for one in found["SHIP"]["blocked_by"]] == [("step", "GATE")]


def kept(run: Run, path: str, content: bytes, home: Any) -> Artifact:
    digest = hashlib.sha256(content).hexdigest()
    (home.artifacts / digest).write_bytes(content)
    execution = run.step_runs.get(step="BUILD").execution
    return Artifact.objects.create(execution=execution, path=path, size=len(content), digest=digest)


def test_files_that_were_kept_are_listed_and_saved(api: Api, home: Any) -> None:
    run, client = work(begin(BUILD)), api("viewer")
    row = kept(run, 'out/<b>"é\n.html', b"<script>alert(1)</script>", home)
    (listed,) = client.get(f"{RUNS}{run.pk}/artifacts/").json()
    assert (listed["id"], listed["path"], listed["step"], listed["size"]) == (row.pk, row.path, "BUILD", row.size)
    answer = client.get(f"{RUNS}{run.pk}/artifacts/{row.pk}/")
    assert b"".join(answer.streaming_content) == b"<script>alert(1)</script>"
    assert answer.headers["Content-Disposition"].startswith("attachment;")
    assert "\n" not in answer.headers["Content-Disposition"]
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_files_of_results_that_were_taken_over_are_the_new_runs_too(api: Api, home: Any) -> None:
    run, client = work(begin(BUILD, BAD)), api("operator")
    row = kept(run, "report.txt", b"x", home)
    new = post(client, f"{RUNS}{run.pk}/retry/").json()["id"]
    assert [one["id"] for one in client.get(f"{RUNS}{new}/artifacts/").json()] == [row.pk]
    assert b"".join(client.get(f"{RUNS}{new}/artifacts/{row.pk}/").streaming_content) == b"x"


def test_a_file_of_another_run_or_without_its_content_is_not_found(api: Api, home: Any) -> None:
    run, other, client = work(begin(BUILD)), work(begin(BUILD)), api("viewer")
    row = kept(run, "report.txt", b"x", home)
    assert client.get(f"{RUNS}{other.pk}/artifacts/{row.pk}/").status_code == 404
    assert client.get(f"{RUNS}{run.pk}/artifacts/{row.pk + 1}/").status_code == 404
    (home.artifacts / row.digest).unlink()
    assert client.get(f"{RUNS}{run.pk}/artifacts/{row.pk}/").status_code == 404
