"""Results that nobody has named, and ways out of a loop: what `check` tells before a run does."""

from __future__ import annotations

import pytest

from djinn.pipelines.errors import PipelineInvalid
from djinn.pipelines.loader import load_text
from djinn.pipelines.schema import Route


def told(*lines: str, head: str = "id: p") -> list[str]:
    """Everything that is told of a pipeline with these steps, as `severity: problem`."""
    text = "\n".join([head, "steps:", *(f"  - {{{line}}}" for line in lines)])
    try:
        problems = load_text(text, file="a.yaml").warnings
    except PipelineInvalid as exc:
        problems = exc.problems
    return [f"{problem.severity}: {problem}" for problem in problems]


REVIEW = "id: R, run: x, outputs: [V, NOTES]"


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ("onResult: {AGAIN: {goto: W}}", "any result but 'AGAIN' makes this step fail"),
        ("onResult: {GOOD: {goto: Z}}", "any result but 'GOOD' makes this step fail"),
        ("onResult: {AGAIN: {goto: W}, MORE: {retry: true}}", "each of these results leads back"),
    ],
)
def test_a_file_that_now_fails_where_it_ended_is_warned_of(keys: str, words: str) -> None:
    last = ["id: Z, run: x"] if "Z" in keys else []
    (warning,) = told("id: W, run: x, onComplete: R", f"{REVIEW}, {keys}", *last)
    assert warning.startswith("warning: a.yaml:4: step R: key onResult: ")
    assert words in warning
    assert "`GOOD: {}` goes on" in warning
    assert "'else'" in warning


@pytest.mark.parametrize(
    "keys",
    [
        "onResult: {AGAIN: {goto: W}, GOOD: {}}",
        "onResult: {AGAIN: {goto: W}}, else: {}",
        "onResult: {AGAIN: {goto: W}}, onComplete: Z",
        "onResult: {AGAIN: {goto: W}, GOOD: {goto: Z}}",
    ],
)
def test_a_step_that_says_what_follows_each_result_has_no_warning(keys: str) -> None:
    last = ["id: Z, run: x"] if "Z" in keys else []
    assert told("id: W, run: x, onComplete: R", f"{REVIEW}, {keys}", *last) == []


def test_a_decision_of_people_needs_no_other_result() -> None:
    assert told("id: W, run: x, onComplete: A", "id: A, approve: true, onResult: {rejected: {goto: W}}") == []


def test_a_value_of_the_schema_that_no_key_names_is_warned_of() -> None:
    schema = "outputSchema: {type: object, properties: {V: {type: string, enum: [GOOD, BAD, UGLY]}}}"
    (warning,) = told(f"id: A, agent: a, outputs: [V], {schema}, onResult: {{GOOD: {{}}, BAD: {{retry: true}}}}")
    assert "the schema lets V be UGLY, which makes this step fail" in warning


def test_else_goes_with_on_result_and_is_checked_like_any_action() -> None:
    assert "error: a.yaml:3: step A: key else: goes with 'onResult'; what always follows is 'onComplete'" in told(
        "id: A, run: x, else: {goto: A}"
    )
    (error,) = told("id: A, run: x, outputs: [V], onResult: {y: {}}, else: {goto: B}")
    assert error.startswith("error: a.yaml:3: step A: key else.goto: there is no step 'B'")
    (error, _) = told("id: A, run: x, outputs: [V], onResult: {y: {}}, else: {gotoo: A}")
    assert "key else.gotoo: unknown key 'gotoo'; did you mean 'goto'?" in error


def test_an_on_complete_that_nothing_comes_to_is_warned_of() -> None:
    (warning,) = told(
        "id: A, run: x, outputs: [V], onResult: {y: {goto: B}}, else: {goto: B}, onComplete: B", "id: B, run: x"
    )
    assert "key onComplete: has no effect beside 'else'" in warning


def test_an_empty_action_goes_on() -> None:
    step = load_text(f"id: p\nsteps: [{{{REVIEW}, onResult: {{y: {{}}}}}}]", file="a.yaml").pipeline.first_step
    assert (step.on_result, step.must_match) == ({"y": Route()}, True)


# --- Ways out of a loop -----------------------------------------------------------------------------------------------
PLAN = "id: P, run: x, outputs: [XS], onComplete: L"
LOOP = "id: L, run: x, loop: {over: XS, onEachComplete: C, onAllComplete: Z}"
LAST = "id: Z, run: x"


@pytest.mark.parametrize(
    ("check", "key"),
    [
        ("onResult: {ok: {continueLoop: true}, bad: {goto: Z}}", "onResult.bad.goto"),
        ("onResult: {ok: {continueLoop: true}, bad: {goto: P}}", "onResult.bad.goto"),
        ("onResult: {ok: {continueLoop: true}}, else: {goto: OUT}", "else.goto"),
        ("onResult: {ok: {continueLoop: true}}, onComplete: OUT", "onComplete"),
    ],
)
def test_a_way_out_of_a_loop_that_does_not_say_so_is_an_error(check: str, key: str) -> None:
    out = ["id: OUT, run: x"] if "OUT" in check else []
    (error,) = told(PLAN, LOOP, f"id: C, run: x, outputs: [V], {check}", LAST, *out)
    assert error.startswith(f"error: a.yaml:5: step C: key {key}: leads to ")
    assert "out of the loop of L, whose other items would not be done" in error
    assert "break" in error


@pytest.mark.parametrize("action", ["{break: true}", "{goto: P, break: true}", "{goto: OUT, break: true}"])
def test_a_way_out_of_a_loop_that_says_so_is_right(action: str) -> None:
    check = f"id: C, run: x, outputs: [V], onResult: {{ok: {{continueLoop: true}}, bad: {action}}}"
    assert told(PLAN, LOOP, check, LAST, *(["id: OUT, run: x"] if "OUT" in action else [])) == []


def test_a_way_out_of_an_inner_loop_into_the_outer_one_has_to_say_so() -> None:
    steps = (
        PLAN,
        "id: L, run: x, loop: {over: XS, onEachComplete: M, onAllComplete: Z}",
        "id: M, run: x, loop: {over: current_item.parts, onEachComplete: C, onAllComplete: E}",
        "id: C, run: x, outputs: [V], onResult: {{ok: {{continueLoop: true}}, bad: {{goto: E{}}}}}",
        "id: E, run: x, onComplete: L",
        LAST,
    )
    (error,) = told(*(line.format("") if "{{" in line else line for line in steps))
    assert "key onResult.bad.goto: leads to E, out of the loop of M" in error
    assert told(*(line.format(", break: true") if "{{" in line else line for line in steps)) == []


def test_a_break_that_leaves_no_loop_is_an_error() -> None:
    check = "id: C, run: x, outputs: [V], onResult: {ok: {continueLoop: true}, bad: {goto: L, break: true}}"
    (error,) = told(PLAN, LOOP, check, LAST)
    assert "key onResult.bad.break: L belongs to the same item: there is no loop to break" in error


def test_an_approval_for_each_item_that_may_be_rejected_stays_in_the_loop() -> None:
    ask = "id: C, approve: true, onResult: {rejected: {goto: F}}"
    assert told(PLAN, LOOP, ask, "id: F, run: x, onComplete: C", LAST) == []
