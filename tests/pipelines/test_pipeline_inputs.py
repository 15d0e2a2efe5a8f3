"""The inputs of a run: coercion, defaults, and everything wrong with them at once."""

from __future__ import annotations

import pytest

from djinn.pipelines.errors import InputsInvalid
from djinn.pipelines.inputs import resolve_inputs
from djinn.pipelines.loader import load_text
from djinn.pipelines.schema import JSON, Pipeline


def pipeline(inputs: str) -> Pipeline:
    return load_text(f"id: a\ninputs: {inputs}\nsteps: [{{id: A, run: ls}}]", file="a.yaml").pipeline


def refused(inputs: str, given: dict[str, JSON]) -> dict[str, str]:
    with pytest.raises(InputsInvalid) as caught:
        resolve_inputs(pipeline(inputs), given)
    return caught.value.problems


@pytest.mark.parametrize(
    ("kind", "given", "value"),
    [
        *[("integer", "3", 3), ("integer", " -3 ", -3), ("integer", 3, 3), ("integer", 3.0, 3)],
        *[("number", "1.5", 1.5), ("number", "2", 2), ("number", 2, 2), ("number", "1e3", 1000.0)],
        *[("boolean", "true", True), ("boolean", "FALSE", False), ("boolean", True, True)],
        *[("string", "3", "3"), ("text", " a\nb ", " a\nb "), ("string", "", "")],
        *[("list", [1, "a"], [1, "a"]), ("list", '[1, {"a": null}]', [1, {"a": None}]), ("list", [], [])],
        *[("json", {"a": [1.5]}, {"a": [1.5]}), ("json", '{"a": 1}', {"a": 1}), ("json", "3", 3), ("json", True, True)],
    ],
)
def test_a_value_is_taken_in_the_declared_type(kind: str, given: JSON, value: JSON) -> None:
    found = resolve_inputs(pipeline(f"{{a: {kind}}}"), {"a": given})["a"]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        ("integer", "3.5", "must be a whole number, not '3.5'"),
        ("integer", 3.5, "must be a whole number, not 3.5"),
        ("integer", "", "must be a whole number, not ''"),
        ("integer", True, "must be a whole number, not true"),
        ("integer", 10**30, "is too large a number"),
        ("integer", "1" * 5000, "must be a whole number, not "),
        ("integer", float("inf"), "is not a finite number"),
        ("number", float("nan"), "is not a finite number"),
        ("number", "1e999", "is not a finite number"),
        ("number", "nan", "must be a number, not 'nan'"),
        ("number", [1], "must be a number, not a list"),
        ("boolean", "yes", "must be true or false, not 'yes'"),
        ("boolean", 1, "must be true or false, not 1"),
        ("string", 3, "must be text, not 3"),
        ("text", {"a": 1}, "must be text, not a mapping"),
        ("text", "a\x00", "holds a NUL character"),
        ("text", "\ud800", "holds a NUL character or half of a surrogate pair"),
        ("text", "x" * 262_145, "is 262145 characters long"),
        ("list", "a, b", "must be a list; the text 'a, b' is no JSON: Expecting value"),
        ("list", '{"a": 1}', "must be a list, not a mapping"),
        ("list", 3, "must be a list, not 3"),
        ("list", [["x" * 200_000], ["y" * 200_000]], "is 400012 bytes long as JSON, at most 262144"),
        ("list", [float("nan")], "is not a finite number"),
        ("list", "[NaN]", "is not a finite number"),
        ("list", [{"a\x00": 1}], "holds a NUL character"),
        ("list", '["\\ud800"]', "holds a NUL character or half of a surrogate pair"),
        ("json", "plain text", "must be JSON; the text 'plain text' is no JSON"),
        ("json", "[" * 100_000, "must be JSON; the text "),
        ("json", "[" * 60 + "]" * 60, "is nested deeper than 50 levels"),
        ("json", {"a": 10**30}, "is too large a number"),
        ("json", "1" * 5000, "must be JSON; the text "),
    ],
)
def test_a_value_of_the_wrong_type_is_refused(kind: str, given: JSON, message: str) -> None:
    assert refused(f"{{a: {kind}}}", {"a": given})["a"].startswith(message)


def test_a_missing_input_is_refused() -> None:
    assert refused("{a: text}", {}) == {"a": "is required (text)"}


def test_null_counts_as_not_given() -> None:
    assert refused("{a: integer}", {"a": None}) == {"a": "is required (a whole number)"}


def test_an_input_that_is_not_given_has_its_default() -> None:
    inputs = "{a: {type: integer, default: 2}, b: {required: false}, c: {type: text, default: 1.50}}"
    assert resolve_inputs(pipeline(inputs), {}) == {"a": 2, "b": None, "c": "1.50"}


def test_an_unknown_input_is_refused_with_a_suggestion() -> None:
    assert refused("{topic: {default: x}}", {"topik": "y"}) == {
        "topik": "there is no such input; did you mean 'topic'?"
    }


def test_a_value_outside_of_the_choices_is_refused() -> None:
    problem = refused("{a: {type: integer, choices: [1, 2]}}", {"a": "3"})
    assert problem == {"a": "must be one of 1, 2, not 3"}


def test_everything_wrong_is_reported_at_once() -> None:
    assert list(refused("{a: text, b: integer, c: boolean}", {"b": "x", "c": "y", "d": 1})) == ["d", "a", "b", "c"]
