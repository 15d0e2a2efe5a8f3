"""The API's schema: committed, current, and what the answers look like."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.core.management import call_command
from jsonschema import Draft202012Validator

from djinn.accounts.models import User
from djinn.executions.models import Artifact
from djinn.pipelines.loader import load_text
from djinn.pipelines.schema import to_snapshot
from djinn.runs.models import Intent, Run, StepRun
from tests.api.conftest import Api, make_schedule
from tests.dashboard.make import end_step, make_approval, make_call, make_run, make_step

COMMITTED = Path(__file__).resolve().parents[2] / "docs" / "api-schema.yaml"


def test_the_committed_schema_is_what_the_code_says(tmp_path: Path) -> None:
    fresh = tmp_path / "schema.yaml"
    call_command("spectacular", file=str(fresh), validate=True, fail_on_warn=True)
    assert fresh.read_text() == COMMITTED.read_text(), "run `make schema`"


ANSWERS = {
    "/api/v1/runs/": "/api/v1/runs/",
    "/api/v1/runs/{id}/": "/api/v1/runs/{run}/",
    "/api/v1/runs/{id}/events/": "/api/v1/runs/{run}/events/",
    "/api/v1/pipelines/": "/api/v1/pipelines/",
    "/api/v1/approvals/": "/api/v1/approvals/",
    "/api/v1/approvals/{id}/": "/api/v1/approvals/{approval}/",
    "/api/v1/runs/{id}/approvals/": "/api/v1/runs/{run}/approvals/",
    "/api/v1/runs/{id}/intents/": "/api/v1/runs/{run}/intents/",
    "/api/v1/runs/{id}/artifacts/": "/api/v1/runs/{run}/artifacts/",
    "/api/v1/runs/{id}/explain/": "/api/v1/runs/{run}/explain/",
    "/api/v1/schedules/": "/api/v1/schedules/",
    "/api/v1/schedules/{id}/": "/api/v1/schedules/{schedule}/",
}


@pytest.mark.parametrize(("path", "address"), ANSWERS.items())
def test_an_answer_looks_as_the_schema_says(
    api: Api, people: dict[str, User], pipelines: Path, path: str, address: str
) -> None:
    step = make_step(make_run(people["operator"]))
    make_call(step)
    end_step(step)
    make_run(None)
    _add_parts(step)
    numbers = {"schedule": make_schedule(people["operator"]).pk, "approval": make_approval(step.run).pk}
    answer = api("viewer").get(address.format(run=step.run_id, **numbers))
    _check(answer, path, "get", "200")


def test_a_started_run_looks_as_the_schema_says(api: Api, pipelines: Path) -> None:
    body = json.dumps({"pipeline": "echo", "inputs": {"word": "a"}})
    _check(api("operator").post("/api/v1/runs/", body, content_type="application/json"), "/api/v1/runs/", "post", "201")


def _add_parts(step: StepRun) -> None:
    """What a run of these steps has when somebody has steered it, and it has kept a file."""
    text = "id: p\nsteps: [{id: build, run: ls}, {id: gate, approve: true}, {id: ship, run: ls}]"
    definition = to_snapshot(load_text(text, file="p.yaml").pipeline)
    Run.objects.filter(pk=step.run_id).update(definition=definition)
    Intent.objects.create(run=step.run, verb="rerun", details={"from_step": "build", "run": 7})
    Artifact.objects.create(execution=step.execution, path="a.txt", size=1, digest="0" * 64)


def _check(answer: Any, path: str, method: str, status: str) -> None:
    assert str(answer.status_code) == status
    document = yaml.safe_load(COMMITTED.read_text())
    schema = document["paths"][path][method]["responses"][status]["content"]["application/json"]["schema"]
    whole = _as_json_schema({**schema, "components": document["components"]})
    Draft202012Validator(whole, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(answer.json())


def _as_json_schema(part: Any) -> Any:
    """OpenAPI 3.0 as JSON Schema: `nullable` becomes a type, and an object has no fields that are not declared."""
    if isinstance(part, list):
        return [_as_json_schema(item) for item in part]
    if not isinstance(part, dict):
        return part
    found = {key: _as_json_schema(value) for key, value in part.items() if key != "nullable"}
    if found.get("type") == "object" and isinstance(found.get("properties"), dict):
        found.setdefault("additionalProperties", False)
    return {"anyOf": [found, {"type": "null"}]} if part.get("nullable") is True else found
