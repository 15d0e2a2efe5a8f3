"""Answers that must follow a schema: the check in its own process, and the ending of an execution."""

from __future__ import annotations

from typing import Any

import pytest

from djinn.core.installation.paths import Installation
from djinn.executions.conclude import conclude
from djinn.executions.launch import brief_of
from djinn.executions.models import Execution
from djinn.executions.relay import Relay
from djinn.executions.structured import order_of, problems_of
from djinn.pipelines.schema import OutputSchema
from djinn.runner.base import ContainerState, InsidePaths, Phase
from tests.make import claimed, failed, journal, make_execution, succeeded

ITEM = {"type": "object", "required": ["title"], "properties": {"title": {"type": "string"}}}
PLAN = {"type": "object", "properties": {"items": {"type": "array", "items": ITEM}}, "required": ["items"]}


TEXT = {"type": "string"}
FOR_TEXT = "1 is not of type 'string'"


@pytest.mark.parametrize(
    ("value", "schema", "problems"),
    [
        ({"items": [{"title": "a"}]}, PLAN, []),
        ({"items": [{"title": "a"}, {}]}, PLAN, ["/items/1: 'title' is a required property"]),
        ({}, PLAN, ["the whole: 'items' is a required property"]),
        ([], PLAN, ["the whole: [] is not of type 'object'"]),
        (None, PLAN, ["the whole: None is not of type 'object'"]),
        ([1, "x", 1], {"items": TEXT}, [f"/0: {FOR_TEXT}", f"/2: {FOR_TEXT}"]),
        ({"a": "x"}, {"properties": {"a": {"format": "date"}}}, []),
        ({"a/b": 1}, {"properties": {"a/b": TEXT}}, [f"/a~1b: {FOR_TEXT}"]),
        ([1], {"$schema": "http://json-schema.org/draft-07/schema#", "items": [TEXT]}, [f"/0: {FOR_TEXT}"]),
        ({"a": {"a": 1}}, {"properties": {"a": {"$ref": "#"}}, "type": "object"}, ["/a/a: 1 is not of type 'object'"]),
    ],
)
def test_each_problem_is_told_with_its_place(value: Any, schema: Any, problems: list[str]) -> None:
    assert problems_of(value, schema) == problems


def test_where_no_choice_fits_the_closest_is_told() -> None:
    choices = [TEXT, {"type": "object", "properties": {"b": TEXT}}]
    (problem,) = problems_of({"a": {"b": 1}}, {"properties": {"a": {"anyOf": choices}}})
    assert f"/a/b {FOR_TEXT}" in problem


def test_problems_and_their_words_are_bounded() -> None:
    problems = problems_of(["x" * 2000] * 100, {"items": {"type": "integer"}})
    assert (len(problems), max(map(len, problems)) < 700) == (20, True)


NESTED: list[Any] = []
for _ in range(100):
    NESTED = [NESTED]
SLOW = "a" * 60 + "!"
TWICE = {f"d{n}": {"allOf": [{"$ref": f"#/$defs/d{n + 1}"}] * 2} for n in range(40)}


@pytest.mark.parametrize(
    ("value", "schema", "words"),
    [
        (SLOW, {"pattern": "^(a+)+$"}, "takes too long"),
        ({SLOW: 1}, {"patternProperties": {"^(a|a)+$": {}}}, "takes too long"),
        (1, {"$ref": "#/$defs/d0", "$defs": {**TWICE, "d40": {}}}, "takes too long"),
        (1, {"$ref": "#"}, "RecursionError"),
        (NESTED, {}, "deeper than 64"),
        ("x" * 300_000, {}, "larger than"),
        (float("inf"), {}, "no JSON"),
        (1, {"$ref": "#/gone"}, "cannot be checked"),
        ("x", {"pattern": "("}, "cannot be checked"),
        (10**400, {"multipleOf": 0.5}, "cannot be checked"),
        (1, {"type": "text"}, "cannot be checked"),
    ],
)
def test_what_cannot_be_checked_is_a_problem_and_no_success(value: Any, schema: Any, words: str) -> None:
    (problem,) = problems_of(value, schema)
    assert words in problem


# --- The ending -------------------------------------------------------------------------------------------------------
WANTED = OutputSchema(name="plan", schema=PLAN)


def ended(home: Installation, finished: dict[str, Any], *, schema: OutputSchema | None = WANTED) -> Execution:
    """An execution whose journal ended so, after its conclusion."""
    order = {"mode": "agent", "agent": {"name": "ada", "output_schema": order_of(schema)}}
    execution = make_execution(order=order, host="here")
    journal(execution, ("ready", {}), ("finished", finished))
    lease = claimed(execution)
    execution.refresh_from_db()
    relay = Relay(execution, lease)
    conclude(execution, lease, relay, ContainerState(Phase.EXITED, 0), stop_reason="", failure=None)
    execution.refresh_from_db()
    return execution


@pytest.mark.django_db(transaction=True)
def test_an_answer_that_follows_the_schema_is_a_success(home: Installation) -> None:
    execution = ended(home, succeeded(answer={"items": [{"title": "a"}]}))
    assert (execution.status, execution.reason) == ("exited", "")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize(
    "finished",
    [
        succeeded(answer={"items": [{}]}),
        succeeded(answer=None),
        succeeded(),
        succeeded(answer={"items": []}, more=1),
        succeeded(items=[]),
        {**succeeded(), "outputs": "answer"},
        {"status": "succeeded"},
    ],
    ids=str,
)
def test_a_success_from_inside_that_does_not_follow_the_schema_is_none(home: Installation, finished: Any) -> None:
    execution = ended(home, finished)
    assert (execution.status, execution.reason) == ("exited", "invalid_output")
    assert execution.message.startswith("the answer does not follow the schema: ")


@pytest.mark.django_db(transaction=True)
def test_a_failure_keeps_its_own_reason(home: Installation) -> None:
    assert ended(home, failed("model")).reason == "model"


@pytest.mark.django_db(transaction=True)
def test_an_execution_without_a_schema_may_answer_what_it_wants(home: Installation) -> None:
    assert ended(home, succeeded(A=1), schema=None).reason == ""


@pytest.mark.django_db
def test_the_brief_holds_the_schema_with_its_order_of_keys() -> None:
    schema = {"type": "object", "properties": {"reasons": {}, "b": {}, "verdict": {}, "a": {}}}
    agent = {"name": "ada", "model": "m", "system": "s", "prompt": "p", "tools": []}
    wanted = order_of(OutputSchema(name="verdict", strict=False, schema=schema))
    execution = make_execution(order={"mode": "agent", "agent": {**agent, "output_schema": wanted}})
    brief = brief_of(execution, InsidePaths("/w", "/x", "/g"))
    assert brief.agent is not None
    assert brief.agent.output_schema == {"name": "verdict", "strict": False, "schema": schema}
    assert list(brief.agent.output_schema["schema"]["properties"]) == ["reasons", "b", "verdict", "a"]
