"""Schemas of answers: which can be used, and how an answer becomes outputs."""

from __future__ import annotations

import json
import re
from typing import Any, cast

import pytest

from djinn.pipelines.schema import OutputSchema, Pipeline, Step, WorkspaceSource, from_snapshot, to_snapshot
from djinn.pipelines.structured import (
    MAX_PROBLEMS,
    MAX_SCHEMA_BYTES,
    MAX_SCHEMA_DEPTH,
    check_schema,
    output_problems,
    outputs_from,
    place_of,
)


def properties(**schemas: Any) -> dict[str, Any]:
    """The schema of an object."""
    return {"type": "object", "properties": schemas}


def nested(levels: int) -> dict[str, Any]:
    """A schema of so many mappings in each other, an odd number."""
    schema: dict[str, Any] = {"type": "object"}
    for _ in range(levels // 2):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


TEXT = {"type": "string"}
USABLE = [
    properties(),
    {"type": "array", "items": TEXT},
    properties(a={"$ref": "#/$defs/x~1y"}) | {"$defs": {"x/y": TEXT}},
    properties(a={"$ref": "#/$defs/a%20b"}) | {"$defs": {"a b": TEXT}},
    properties(a={"$ref": "#named"}, b={"$anchor": "named"}),
    properties(a={"$ref": "#"}),
    properties(a={"$ref": "#/allOf/0"}) | {"allOf": [{}]},
    properties(a=properties(b={"$dynamicRef": "#x"})),
    properties(**{"$ref": TEXT, "pattern": TEXT, "$id": TEXT, "enum": properties()}),
    properties(a={"const": {"$ref": "http://elsewhere/"}}, b={"enum": [{"pattern": "("}]}),
    properties(a={"pattern": "^[a-z]+$", "format": "no-such-format"}),
    properties() | {"$id": "https://example.org/answer"},
    properties() | {"$schema": "http://json-schema.org/draft-07/schema#", "items": [TEXT]},
    properties() | {"$schema": "https://json-schema.org/draft/2020-12/schema"},
    nested(MAX_SCHEMA_DEPTH - 1),
]


@pytest.mark.parametrize("schema", USABLE, ids=lambda schema: str(schema)[:60])
def test_a_schema_that_can_be_used_has_no_problems(schema: Any) -> None:
    assert check_schema(schema) == []


UNUSABLE: list[tuple[Any, str]] = [
    (True, "no mapping"),
    ([], "no mapping"),
    ({}, "object or array"),
    ({"type": "string"}, "object or array"),
    ({"type": ["object", "null"]}, "object or array"),
    (properties(a={"type": "text"}), "/properties/a/type: 'text' is not valid"),
    (properties(a=5), "/properties/a: 5 is not"),
    ({"type": "array", "items": [TEXT]}, "/items: "),
    (properties() | {"required": "a"}, "/required: 'a' is not of type 'array'"),
    (properties() | {"$schema": "https://example.org/my-draft"}, "no draft 'https://example.org/my-draft'"),
    (properties() | {"$schema": 7}, "no draft '7'"),
    (properties(a={"$ref": "https://example.org/x"}), "leads out of the schema"),
    (properties(a={"$ref": "file:///etc/passwd"}), "leads out of the schema"),
    (properties(a={"$ref": "other.json#/x"}), "leads out of the schema"),
    (properties(a={"allOf": [{"$dynamicRef": "http://x/"}]}), "leads out of the schema"),
    (properties(a={"$ref": "#/$defs/gone"}), "leads to nothing"),
    (properties(a={"$ref": "#/allOf/1"}) | {"allOf": [{}]}, "leads to nothing"),
    (properties(a={"$id": "http://x/", "$ref": "#"}), "only the whole schema"),
    (properties(a={"pattern": "("}), "no regular expression"),
    (properties() | {"patternProperties": {"[": {}}}, "no regular expression"),
    (properties(a={"pattern": "a" * 1001}), "longer than 1000"),
    (properties(a={"description": "x" * MAX_SCHEMA_BYTES}), f"at most {MAX_SCHEMA_BYTES}"),
    (properties(a={"const": float("nan")}), "no JSON"),
    (nested(MAX_SCHEMA_DEPTH + 1), f"deeper than {MAX_SCHEMA_DEPTH}"),
    (nested(100_001), f"deeper than {MAX_SCHEMA_DEPTH}"),
]


@pytest.mark.parametrize(("schema", "words"), UNUSABLE, ids=lambda value: str(value)[:40] if type(value) is str else "")
def test_a_schema_that_cannot_be_used_is_said_why(schema: Any, words: str) -> None:
    problems = check_schema(schema)
    assert any(words in problem for problem in problems), problems


def test_everything_wrong_is_said_at_once() -> None:
    schema = properties(a={"type": "text"}, b={"$ref": "http://x/"}, c={"pattern": "("}) | {"type": "string"}
    assert len(check_schema(schema)) == 4


def test_the_problems_of_a_schema_are_bounded() -> None:
    assert len(check_schema(properties(**{f"p{number}": 5 for number in range(1000)}))) == MAX_PROBLEMS


PLAN = properties(items={"type": "array"}, note=TEXT)


@pytest.mark.parametrize(
    ("value", "declared", "schema", "outputs"),
    [
        ({"items": [1], "note": "x"}, [], PLAN, {"items": [1], "note": "x"}),
        ({"items": [1], "note": "x"}, ["items"], PLAN, {"items": [1]}),
        ({"items": [1]}, ["items", "note"], PLAN, {"items": [1], "note": None}),
        ({"items": [1]}, ["PLAN"], PLAN, {"PLAN": {"items": [1]}}),
        ({"items": [1]}, ["PLAN", "items"], PLAN, {"PLAN": {"items": [1]}, "items": [1]}),
        ({"more": 1}, ["more"], PLAN, {"more": 1}),
        ({"ITEMS": 1}, ["items"], PLAN, {"items": None}),
        ([1, 2], ["LIST"], {"type": "array"}, {"LIST": [1, 2]}),
        ([1, 2], ["items"], {"type": "array", "properties": {"items": {}}}, {"items": [1, 2]}),
        ({}, [], {"type": "object"}, {}),
    ],
)
def test_an_answer_becomes_the_declared_outputs(value: Any, declared: Any, schema: Any, outputs: Any) -> None:
    assert outputs_from(value, declared, schema) == outputs


@pytest.mark.parametrize(
    ("declared", "schema", "words"),
    [
        (["A", "items", "B"], PLAN, "A, B are no properties"),
        (["A", "B"], {"type": "array"}, "A, B are no properties"),
        ([], {"type": "array"}, "the answer is a list"),
    ],
)
def test_outputs_that_cannot_be_told_from_an_answer_are_a_problem(declared: Any, schema: Any, words: str) -> None:
    (problem,) = output_problems(declared, schema)
    assert re.search(words, problem)


@pytest.mark.parametrize(
    ("declared", "schema"), [([], PLAN), (["A"], PLAN), (["A", "note"], PLAN), (["A"], {"type": "array"})]
)
def test_outputs_that_can_be_told_are_no_problem(declared: Any, schema: Any) -> None:
    assert output_problems(declared, schema) == []


def test_a_snapshot_keeps_the_order_in_which_models_answer() -> None:
    step = Step(id="PLAN", kind="agent", output_schema=OutputSchema("plan", properties(why={}, b={}, verdict={}, a={})))
    pipeline = Pipeline("p", "P", "1", "", (), WorkspaceSource(), (step,))
    stored = json.loads(json.dumps(to_snapshot(pipeline), sort_keys=True))
    wanted = from_snapshot(stored).steps[0].output_schema
    assert wanted == step.output_schema
    assert wanted is not None
    assert list(cast("dict[str, Any]", wanted.schema["properties"])) == ["why", "b", "verdict", "a"]


@pytest.mark.parametrize(
    ("path", "text"), [([], "the whole"), (["a", 0, "b"], "/a/0/b"), (["a/b", "c~d", ""], "/a~1b/c~0d/")]
)
def test_a_place_is_a_json_pointer(path: list[str | int], text: str) -> None:
    assert place_of(path) == text
