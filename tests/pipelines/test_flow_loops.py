"""Loops that follow each other, come back, or have nothing to do: each visits its own items once, in order."""

from __future__ import annotations

from collections.abc import Mapping

from djinn.pipelines.flow import Finish, Past, Refuse, Skip, Start, Status, next_steps
from djinn.pipelines.loader import load_text
from djinn.pipelines.names import names_for
from djinn.pipelines.schema import JSON, Pipeline

Gives = Mapping[str, Mapping[str, JSON] | list[Mapping[str, JSON]]]


def walked(text: str, gives: Gives, *, most: int = 200) -> tuple[list[str], list[JSON], Finish]:
    """The tries in order, the `completed_items` of each, and the end. A list of outputs is for one visit each."""
    pipeline = load_text(text, file="a.yaml").pipeline
    history: list[Past] = []
    seen: list[JSON] = []
    while len(history) < most:
        (decision,) = next_steps(pipeline, history)
        if isinstance(decision, Finish):
            return [f"{past.step}[{past.item}]" if past.item else past.step for past in history], seen, decision
        assert isinstance(decision, (Start, Skip, Refuse))
        history.append(past_of(decision, gives))
        seen.append(completed(pipeline, history))
    raise AssertionError(f"no end after {most} step runs")


def past_of(decision: Start | Skip | Refuse, gives: Gives) -> Past:
    if isinstance(decision, Refuse):
        return Past(decision.step, decision.visit, 1, Status.FAILED, decision.reason, {}, decision.item)
    if isinstance(decision, Skip):
        return Past(decision.step, decision.visit, 1, Status.SKIPPED, "", {}, decision.item, [])
    given = gives.get(decision.step, {})
    outputs = given[min(decision.visit, len(given)) - 1] if isinstance(given, list) else given
    outputs = {**outputs, "OF": decision.item_value} if decision.item else outputs
    return Past(decision.step, decision.visit, 1, Status.SUCCEEDED, "", outputs, decision.item, decision.item_value)


def completed(pipeline: Pipeline, history: list[Past]) -> JSON:
    names = names_for(pipeline, history, {}, pipeline.step(history[-1].step), history[-1])
    found = names.get("completed_items")
    return [one["item"] for one in found if isinstance(one, dict)] if isinstance(found, list) else None


TWO = """\
id: two
steps:
  - {id: PLAN, run: x, outputs: [XS, YS], onComplete: A}
  - {id: A, run: x, outputs: [OF], loop: {over: XS, onAllComplete: B}}
  - {id: B, run: x, outputs: [OF], loop: {over: YS, onAllComplete: END}}
  - {id: END, run: x}
"""


def test_a_loop_behind_a_loop_over_one_item_visits_all_of_its_own() -> None:
    tries, _, end = walked(TWO, {"PLAN": {"XS": ["a"], "YS": ["p", "q"]}})
    assert tries == ["PLAN", "A[0]", "B[0]", "B[1]", "END"]
    assert end.status == "succeeded"


def test_completed_items_are_those_of_the_steps_own_loop() -> None:
    _, seen, _ = walked(TWO, {"PLAN": {"XS": ["a", "b", "c"], "YS": ["p", "q"]}})
    assert seen == [None, [], ["a"], ["a", "b"], [], ["p"], ["p", "q"]]


def test_completed_items_are_those_of_this_pass() -> None:
    text = """\
id: again
steps:
  - {id: PLAN, run: x, outputs: [XS], onComplete: A}
  - {id: A, run: x, outputs: [OF], loop: {over: XS, onAllComplete: CHECK}}
  - {id: CHECK, run: x, outputs: [V], onResult: {AGAIN: {goto: PLAN}, GOOD: {}}}
"""
    gives = {"PLAN": [{"XS": ["a", "b", "c"]}, {"XS": ["z"]}], "CHECK": [{"V": "AGAIN"}, {"V": "GOOD"}]}
    tries, seen, end = walked(text, gives)
    assert tries == ["PLAN", "A[0]", "A[1]", "A[2]", "CHECK", "PLAN", "A[0]", "CHECK"]
    assert (seen[4], seen[7], end.status) == (["a", "b", "c"], ["z"], "succeeded")


def test_an_empty_loop_that_leads_back_to_itself_ends_by_its_visits() -> None:
    text = """\
id: round
steps:
  - {id: PLAN, run: x, outputs: [XS], onComplete: A}
  - {id: A, run: x, maxVisits: 3, loop: {over: XS, onAllComplete: A}}
"""
    tries, _, end = walked(text, {"PLAN": {"XS": []}})
    assert tries == ["PLAN", "A", "A", "A"]
    assert (end.status, end.reason) == ("failed", "visits")


def test_a_loop_of_its_own_that_comes_back_reads_its_list_anew() -> None:
    text = """\
id: own
steps:
  - {id: PLAN, run: x, outputs: [XS], onComplete: A}
  - {id: A, run: x, maxVisits: 2, outputs: [XS], loop: {over: XS, onAllComplete: A}}
"""
    tries, _, end = walked(text, {"PLAN": {"XS": ["a"]}, "A": {"XS": ["b", "c"]}})
    assert tries[:4] == ["PLAN", "A[0]", "A[0]", "A[1]"]
    assert end.reason == "visits"


def test_an_inner_loop_that_leads_to_the_outer_one_goes_on_with_its_next_item() -> None:
    text = """\
id: nested
steps:
  - {id: PLAN, run: x, outputs: [XS, YS], onComplete: O}
  - {id: O, run: x, loop: {over: XS, onEachComplete: I}}
  - {id: I, run: x, onComplete: O, loop: {over: YS}}
"""
    tries, _, end = walked(text, {"PLAN": {"XS": ["a", "b"], "YS": ["p"]}})
    assert tries == ["PLAN", "O[0]", "I[0.0]", "O[1]", "I[1.0]"]
    assert end.status == "succeeded"


def test_what_follows_an_inner_loop_belongs_to_the_outer_item() -> None:
    text = """\
id: behind
steps:
  - {id: PLAN, run: x, outputs: [XS, YS], onComplete: O}
  - {id: O, run: x, loop: {over: XS, onEachComplete: I}}
  - {id: I, run: x, loop: {over: YS, onEachComplete: C, onAllComplete: D}}
  - {id: C, run: x, outputs: [V], onResult: {OK: {continueLoop: true}}}
  - {id: D, run: x}
"""
    tries, _, end = walked(text, {"PLAN": {"XS": ["a", "b"], "YS": ["p"]}, "C": {"V": "OK"}})
    assert tries == ["PLAN", "O[0]", "I[0.0]", "C[0.0]", "D[0]", "O[1]", "I[1.0]", "C[1.0]", "D[1]"]
    assert end.status == "succeeded"


def test_an_approvals_comment_is_never_taken_for_its_decision() -> None:
    text = """\
id: ask
steps:
  - {id: ASK, approve: true, onResult: {approved: {goto: SHIP}, rejected: {goto: FIX}}}
  - {id: SHIP, run: x}
  - {id: FIX, run: x}
"""
    tries, _, _ = walked(text, {"ASK": {"COMMENT": "approved", "DECISION": "rejected"}})
    assert tries == ["ASK", "FIX"]


def test_an_item_is_not_tried_again_once_another_one_has_failed_for_good() -> None:
    pipeline = load_text(
        "id: g\nsteps: [{id: A, run: x, foreach: {over: '[1, 2]'}, retries: {max: 1, on: [timeout]}}]", file="a.yaml"
    ).pipeline
    reasons = (("error", "0"), ("timeout", "1"))
    failed = [Past("A", 1, 1, Status.FAILED, reason, {}, item, 1) for reason, item in reasons]
    (decision,) = next_steps(pipeline, failed)
    assert isinstance(decision, Finish)
    assert (decision.status, decision.step) == ("failed", "A")
