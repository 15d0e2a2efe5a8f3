"""What stands when a run is done again: by tables for the words of the rules, by hypothesis for all of them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from djinn.core.errors import Conflict, UserError
from djinn.pipelines.errors import PipelineInvalid
from djinn.pipelines.flow import Finish, Past, Refuse, Skip, Start, Status, next_steps
from djinn.pipelines.loader import load_text
from djinn.pipelines.schema import Pipeline
from djinn.runs.reuse import kept_on_rerun, kept_on_retry

S, F, C, K = Status.SUCCEEDED, Status.FAILED, Status.CANCELLED, Status.SKIPPED
IDS = "ABCDE"


def pipeline(*steps: dict[str, Any]) -> Pipeline:
    return load_text(json.dumps({"id": "p", "steps": steps}), file="p.yaml").pipeline


def run(name: str, **keys: Any) -> dict[str, Any]:
    return {"id": name, "run": "ls", "retries": {"max": 0}, **keys}


def past(name: str, status: Status = S, *, visit: int = 1, attempt: int = 1, item: str = "", **keys: Any) -> Past:
    reason = "error" if status is F else ""
    return Past(name, visit, attempt, status, keys.pop("reason", reason), item=item, **keys)


# --- Routed -----------------------------------------------------------------------------------------------------------
LINE = pipeline(run("A"), run("B"), run("C"))
RETRIED = [past("A"), past("B", F), past("B", S, attempt=2), past("C", F), past("C", F, attempt=2)]


def test_a_retry_keeps_what_came_before_the_failed_visit() -> None:
    assert kept_on_retry(LINE, RETRIED, "error") == [1, 2, 3]


def test_a_retry_of_a_run_that_was_cancelled_between_steps_keeps_all() -> None:
    assert kept_on_retry(LINE, [past("A"), past("B")], "cancelled") == [1, 2]


def test_a_retry_of_a_run_without_steps_keeps_nothing() -> None:
    assert kept_on_retry(LINE, [], "cancelled") == []


def test_a_retry_after_too_many_tries_by_result_does_the_visit_again() -> None:
    assert kept_on_retry(LINE, [past("A"), past("B"), past("B", attempt=2)], "retries") == [1]


def test_a_rerun_keeps_what_came_before_the_first_try_of_the_last_visit() -> None:
    history = [past("A"), past("B"), past("A", visit=2), past("B", F, visit=2), past("B", visit=2, attempt=2)]
    assert kept_on_rerun(LINE, history, "B") == [1, 2, 3]
    assert kept_on_rerun(LINE, history, "B", visit=1) == [1]
    assert kept_on_rerun(LINE, history, "A") == [1, 2]


def test_a_rerun_of_an_item_begins_at_that_item() -> None:
    history = [past("A"), past("B", item="0"), past("C", item="0"), past("B", item="1"), past("C", item="1")]
    assert kept_on_rerun(LINE, history, "B", item="0") == [1]
    assert kept_on_rerun(LINE, history, "B") == [1, 2, 3]


NEVER: dict[str, tuple[tuple[Any, ...], type[UserError], str]] = {
    "unknown step": (("D",), UserError, "is no step"),
    "step that was not reached": (("C",), Conflict, "Step C never ran"),
    "step that was skipped": (("B",), Conflict, "Step B never ran"),
    "unknown item": (("A", "7"), Conflict, r"Step A\[7\] never ran"),
    "unknown visit": (("A", "", 2), Conflict, "Step A visit 2 never ran"),
}


@pytest.mark.parametrize("name", NEVER)
def test_what_never_ran_cannot_be_run_again(name: str) -> None:
    arguments, error, text = NEVER[name]
    with pytest.raises(error, match=text):
        kept_on_rerun(LINE, [past("A"), past("B", K)], *arguments)


# --- Graphs -----------------------------------------------------------------------------------------------------------
FAN = pipeline(
    run("A"), run("B", needs=["A"]), run("C", needs=["A"]), run("D", needs=["B"]), run("E", needs=["C", "D"])
)


def test_a_retry_of_a_graph_keeps_all_but_what_failed_and_what_needs_it() -> None:
    history = [past("A"), past("B", F), past("C"), past("D", K), past("E", K)]
    assert kept_on_retry(FAN, history, "error") == [1, 3]


def test_a_retry_keeps_a_failure_that_the_step_tolerates() -> None:
    tolerant = pipeline(run("A", continueOnError=True), run("B", needs=["A"]), run("C"))
    assert kept_on_retry(tolerant, [past("A", F), past("C", F), past("B")], "error") == [1, 3]


def test_a_retry_keeps_the_items_that_succeeded() -> None:
    items = pipeline(run("A", matrix={"n": [1, 2, 3]}), run("B", needs=["A"]))
    history = [past("A", item="0"), past("A", F, item="1"), past("A", item="2"), past("B", K)]
    assert kept_on_retry(items, history, "error") == [1, 3]


def test_a_retry_of_a_cancelled_graph_does_what_was_cancelled() -> None:
    assert kept_on_retry(FAN, [past("A"), past("B", C), past("C")], "cancelled") == [1, 3]


def test_a_rerun_of_a_graph_keeps_all_but_the_step_and_what_needs_it() -> None:
    history = [past(name) for name in "ABCDE"]
    assert kept_on_rerun(FAN, history, "B") == [1, 3]
    assert kept_on_rerun(FAN, history, "E") == [1, 2, 3, 4]
    assert kept_on_rerun(FAN, history, "A") == []


def test_a_rerun_does_again_what_failed_beside_the_step() -> None:
    history = [past("A"), past("B"), past("C", F), past("D"), past("E", K)]
    assert kept_on_rerun(FAN, history, "D") == [1, 2]


def test_a_rerun_keeps_nothing_that_is_open() -> None:
    history = [past("A"), past("B"), past("C", Status.RUNNING), past("D")]
    assert kept_on_rerun(FAN, history, "D") == [1, 2]


def test_a_rerun_of_one_item_keeps_the_others() -> None:
    items = pipeline(run("A", matrix={"n": [1, 2, 3]}), run("B", needs=["A"]))
    history = [past("A", item=item) for item in "012"] + [past("B")]
    assert kept_on_rerun(items, history, "A", item="1") == [1, 3]
    assert kept_on_rerun(items, history, "A") == []


# --- Everything -------------------------------------------------------------------------------------------------------
@st.composite
def routed(draw: st.DrawFn) -> Pipeline:
    """Steps with routes anywhere, one of them perhaps a loop over two items."""
    ids = IDS[: draw(st.integers(1, 5))]
    steps = []
    for name in ids:
        keys: dict[str, Any] = {"outputs": ["v"], "maxVisits": draw(st.integers(1, 3))}
        keys["retries"] = {"max": draw(st.integers(0, 2))}
        if draw(st.booleans()):
            keys["onComplete"] = draw(st.sampled_from(ids))
        if draw(st.booleans()):
            keys["onResult"] = {"yes": draw(st.sampled_from(({"goto": ids[0]}, {"retry": True}, {"goto": name})))}
        steps.append(run(name, **keys))
    if len(ids) > 2 and draw(st.booleans()):
        steps[0]["loop"] = {"over": "xs", "onEachComplete": ids[1], "onAllComplete": ids[2]}
        leave = draw(st.sampled_from(({"goto": ids[1]}, {"goto": ids[2], "break": True})))
        steps[1]["onResult"] = {"yes": {"continueLoop": True}, "no": leave}
    document = {"id": "p", "inputs": {"xs": {"type": "list", "default": [1, 2]}}, "steps": steps}
    try:
        return load_text(json.dumps(document), file="p.yaml").pipeline
    except PipelineInvalid:  # an item that leaves its loop without saying so
        reject()


@st.composite
def graphs(draw: st.DrawFn) -> Pipeline:
    """Steps that need earlier ones, some of several items, some that tolerate failures or look at them."""
    ids = IDS[: draw(st.integers(2, 5))]
    steps = []
    for number, name in enumerate(ids):
        before = list(ids[:number])
        needs = draw(st.lists(st.sampled_from(before), unique=True)) if before else []
        keys: dict[str, Any] = {"needs": needs, "outputs": ["v"], "retries": {"max": draw(st.integers(0, 1))}}
        keys["continueOnError"] = draw(st.booleans())
        if draw(st.integers(0, 2)) == 0:
            keys["matrix"] = {"n": [1, 2]}
        if needs and draw(st.integers(0, 2)) == 0:
            keys["when"] = f"steps.{needs[0]}.status == 'failed'"
        steps.append(run(name, **keys))
    steps[-1]["continueOnError"] = True  # so that it is a graph whatever was drawn
    return pipeline(*steps)


def played(flow: Pipeline, data: st.DataObject, most: int) -> list[Past]:
    """A history of the pipeline, perhaps in its middle, in which what has started ends in any order."""
    history: list[Past] = []
    inputs = {"xs": [1, 2]}
    for _ in range(most):
        decisions = next_steps(flow, history, inputs=inputs)
        if any(isinstance(decision, Finish) for decision in decisions):
            return history
        for decision in decisions:
            if isinstance(decision, Start):
                history.append(_begun(decision))
            elif isinstance(decision, Skip):
                history.append(replace(_begun(decision, attempt=1), status=K))
            elif isinstance(decision, Refuse):
                history.append(replace(_begun(decision), status=F, reason=decision.reason))
        waiting = [number for number, one in enumerate(history) if not one.status.is_final]
        if waiting:
            number = data.draw(st.sampled_from(waiting))
            status = data.draw(st.sampled_from((S, S, S, F, C)))
            value = data.draw(st.sampled_from(("yes", "no")))
            reason = {F: "error", C: "cancelled"}.get(status, "")
            outputs = {"v": value} if status is S else {}
            history[number] = replace(history[number], status=status, reason=reason, outputs=outputs)
    return history


def _begun(decision: Any, attempt: int = 0) -> Past:
    status = Status.RUNNING
    value = getattr(decision, "item_value", None)
    number = attempt or decision.attempt
    return Past(
        decision.step, decision.visit, number, status, item=decision.item, item_value=value, bases=decision.bases
    )


def _kept(history: list[Past], kept: list[int]) -> list[Past]:
    """The history of the new run; every base of what is kept must be kept."""
    numbers = {number: position for position, number in enumerate(kept, 1)}
    past = [history[number - 1] for number in kept]
    return [replace(one, bases=tuple(numbers[base] for base in one.bases)) for one in past]


def _starts(flow: Pipeline, history: list[Past]) -> set[tuple[str, str]]:
    decisions = next_steps(flow, history, inputs={"xs": [1, 2]})
    return {(one.step, one.item) for one in decisions if isinstance(one, (Start, Refuse))}


@settings(deadline=None, max_examples=300)
@given(routed(), st.data())
def test_a_rerun_of_a_routed_run_starts_with_just_that_visit(flow: Pipeline, data: st.DataObject) -> None:
    history = played(flow, data, data.draw(st.integers(1, 25)))
    ran = [one for one in history if one.status is not K]
    if not ran:
        return
    chosen = data.draw(st.sampled_from(ran))
    kept = kept_on_rerun(flow, history, chosen.step, chosen.item, chosen.visit)
    (start,) = [
        one for one in next_steps(flow, _kept(history, kept), inputs={"xs": [1, 2]}) if isinstance(one, (Start, Refuse))
    ]
    assert (start.step, start.item, start.visit, start.attempt) == (chosen.step, chosen.item, chosen.visit, 1)


@settings(deadline=None, max_examples=300)
@given(graphs(), st.data())
def test_a_rerun_of_a_graph_starts_the_step_and_computes_nothing_else_again(
    flow: Pipeline, data: st.DataObject
) -> None:
    history = played(flow, data, data.draw(st.integers(1, 25)))
    ran = [one for one in history if one.status is not K]
    if not ran:
        return
    chosen = data.draw(st.sampled_from(ran))
    kept = kept_on_rerun(flow, history, chosen.step, chosen.item)
    new = _kept(history, kept)
    assert all(one.status.is_final for one in new)
    assert chosen.step in {step for step, _ in _starts(flow, new)}
    done = {(one.step, one.item) for one in new if one.status is S}
    assert done.isdisjoint(_starts(flow, new))


@settings(deadline=None, max_examples=300)
@given(st.one_of(routed(), graphs()), st.data())
def test_a_retry_begins_with_nothing_that_makes_it_fail(flow: Pipeline, data: st.DataObject) -> None:
    history = played(flow, data, 60)
    (end,) = [one for one in next_steps(flow, history, inputs={"xs": [1, 2]}) if isinstance(one, Finish)] or [None]
    if end is None or end.status == "succeeded":
        return
    new = _kept(history, kept_on_retry(flow, history, end.reason))
    decisions = next_steps(flow, new, inputs={"xs": [1, 2]})
    is_hopeless = any(isinstance(one, Finish) for one in decisions)
    assert not is_hopeless or flow.family == "routed"
    assert not is_hopeless or history[-1].status not in (F, C)
