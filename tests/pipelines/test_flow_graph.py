"""The rules of the graph family, each once: pipelines and answers, and what becomes of each step."""

from __future__ import annotations

from typing import Any

import pytest

from djinn.pipelines.flow import Blocked, Blocker, Past, Status, next_steps
from djinn.pipelines.schema import Approve, Pipeline, Retries, Step, WorkspaceSource
from djinn.pipelines.simulate import Answer, Ask, Played, play

JSON = Any
Says = dict[str, Answer]
INPUTS = {"TWO": ["a", "b"], "NONE": [], "TEXT": '["a", "b"]', "MAP": {"a": 1}, "MANY": list(range(1001)), "WORD": "x"}
FAIL = Answer("failed", "error")


def do(name: str, *needs: str, **keys: Any) -> Step:
    return Step(name, "run", run="x", outputs=(name.lower(),), needs=needs, **{"retries": Retries(0), **keys})


def pipeline(*steps: Step) -> Pipeline:
    return Pipeline("p", "p", "", "", (), WorkspaceSource(), steps)


def ran(steps: tuple[Step, ...], says: Says) -> Played:
    """The run in which `STEP[item]`, or else `STEP`, ends as is written down for it."""

    def answer(ask: Ask) -> Answer:
        usual = Answer(outputs=dict.fromkeys(ask.step.outputs, f"of {ask.step.id}"))
        return says.get(f"{ask.step.id}[{ask.item}]") or says.get(ask.step.id) or usual

    return play(pipeline(*steps), answer, inputs=INPUTS)


def ends(played: Played) -> str:
    """How each step run ended, in the order in which it began."""
    marks = {Status.SUCCEEDED: "", Status.FAILED: "!", Status.SKIPPED: "-", Status.CANCELLED: "x"}
    return " ".join(f"{p.step}[{p.item}]{marks[p.status]}" if p.item else f"{p.step}{marks[p.status]}"
                    for p in played.history)  # fmt: skip


def gives(name: str, value: JSON) -> Answer:
    return Answer(outputs={name: value})


ASK = Step("Q", "approve", approve=Approve())
ALWAYS = {"when": "true"}

TABLE: dict[str, tuple[tuple[Step, ...], Says, str, str]] = {
    "a step waits for all that it needs": ((do("C", "A", "B"), do("A"), do("B")), {}, "A B C", "succeeded"),
    "a failure skips what needs it, and that what needs it": (
        (do("A"), do("B", "A"), do("C", "B"), do("D")), {"A": FAIL}, "A! D B- C-", "error",
    ),
    "a tolerated failure lets go on": (
        (do("A", continue_on_error=True), do("B", "A")), {"A": FAIL}, "A! B", "succeeded",
    ),
    "a condition that is not true skips": (
        (do("A"), do("B", "A", when="a == 'x'"), do("C", "B")), {}, "A B- C-", "succeeded",
    ),
    "a condition that is true": ((do("A"), do("B", "A", when="a == 'of A'")), {}, "A B", "succeeded"),
    "a condition that reads steps decides after a failure": (
        (do("A"), do("B", "A", when="steps.A.status == 'failed'")), {"A": FAIL}, "A! B", "error",
    ),
    "a condition that reads steps decides after a skip": (
        (do("A", when="false"), do("B", "A", when="steps.A.status == 'skipped'")), {}, "A- B", "succeeded",
    ),
    "a condition that does not read steps is not asked after a failure": (
        (do("A"), do("B", "A", **ALWAYS)), {"A": FAIL}, "A! B-", "error",
    ),
    "a condition that cannot be told fails": ((do("A"), do("B", "A", when="a > 1")), {}, "A B!", "input"),
    "a step is tried again before it counts as failed": (
        (do("A", retries=Retries(1)), do("B", "A")), {"A": FAIL}, "A! A! B-", "error",
    ),
    "a step for each item": ((do("A", over="TWO"), do("B", "A")), {}, "A[0] A[1] B", "succeeded"),
    "items of text that is JSON": ((do("A", over="TEXT"), do("B", "A")), {}, "A[0] A[1] B", "succeeded"),
    "no items count as done": ((do("A", over="NONE"), do("B", "A")), {}, "A- B", "succeeded"),
    "what is no list fails": ((do("A", over="MAP"), do("B", "A")), {}, "A! B-", "input"),
    "too many items fail": ((do("A", over="MANY"), do("B", "A")), {}, "A! B-", "input"),
    "a step for each combination": (
        (do("A", matrix={"x": (1, 2), "y": ("p", "q")}), do("B", "A")), {}, "A[0] A[1] A[2] A[3] B", "succeeded",
    ),
    "an item that fails lets open ones end and no new one start": (
        (do("A", over="MANY_", parallel=2), do("B", "A")), {"A[0]": FAIL}, "A[0]! A[1] B-", "error",
    ),
    "an item that may fail lets all run": (
        (do("A", over="TWO", parallel=1, continue_on_error=True), do("B", "A")), {"A[0]": FAIL},
        "A[0]! A[1] B", "succeeded",
    ),
    "an empty list is a list of outputs for another one": (
        (do("A", over="NONE"), do("B", "A", over="steps.A.outputs.a"), do("C", "B")), {}, "A- B- C", "succeeded",
    ),
    "a rejection fails": ((ASK, do("B", "Q")), {"Q": Answer("rejected")}, "Q! B-", "rejected"),
    "a tolerated rejection lets go on": (
        (Step("Q", "approve", approve=Approve(), continue_on_error=True), do("B", "Q")), {"Q": Answer("rejected")},
        "Q! B", "succeeded",
    ),
    "the run fails with the first reason, after everything else": (
        (do("A"), do("B", "A"), do("C"), do("D", "C")), {"A": FAIL, "D": Answer("failed", "timeout")},
        "A! C B- D!", "error",
    ),
    "a step that was cancelled cancels the run": (
        (do("A"), do("B", "A"), do("C")), {"A": Answer("cancelled")}, "Ax C B-", "cancelled",
    ),
}  # fmt: skip
INPUTS["MANY_"] = ["a", "b", "c", "d"]


@pytest.mark.parametrize(("steps", "says", "path", "end"), TABLE.values(), ids=TABLE.keys())
def test_the_graph_ends(steps: tuple[Step, ...], says: Says, path: str, end: str) -> None:
    played = ran(steps, says)
    assert (ends(played), played.finish.reason or played.finish.status) == (path, end)


def test_outputs_of_items_are_a_list_in_their_order_with_null_for_a_failed_one() -> None:
    steps = (do("A", over="MANY_", parallel=4, continue_on_error=True), do("B", "A"))
    says = {f"A[{n}]": Answer(outputs={"a": n}, seconds=100 - n) for n in range(4)} | {"A[2]": FAIL}
    assert ran(steps, says).outputs["a"] == [0, 1, None, 3]


def test_a_step_begins_with_the_files_of_all_that_it_needs() -> None:
    steps = (
        do("A"),
        do("L", "A", over="TWO"),
        do("S", "A", when="false"),
        ASK,
        do("J", "L", "S", "Q", when="steps.S.status == 'skipped'"),
        do("K", "J"),
    )
    played = ran(steps, {"Q": Answer("approved")})
    bases = {(past.step, past.item): past.bases for past in played.history}
    numbers = {(past.step, past.item): number for number, past in enumerate(played.history, 1)}
    a = numbers["A", ""]
    assert bases["L", "0"] == bases["L", "1"] == bases["S", ""] == (a,)
    assert bases["J", ""] == (numbers["L", "0"], numbers["L", "1"], a)
    assert bases["K", ""] == (numbers["J", ""],)


def test_parallel_bounds_how_many_items_run_at_once() -> None:
    played = ran((do("A", over="MANY_", parallel=2, retries=Retries(1)),), {"A[0]": FAIL})
    running, most = 0, 0
    for event in played.events:
        running += {"step_started": 1, "step_finished": -1}.get(event.type, 0)
        most = max(most, running)
    assert most == 2


PAUSE = Blocker("pause", "somebody has to resume the run")


def test_a_paused_run_blocks_what_would_start_and_what_would_not() -> None:
    steps = pipeline(do("A"), do("B", "A"))
    assert next_steps(steps, [], paused=True) == (
        Blocked("A", "the run is paused", "", (PAUSE,)),
        Blocked("B", "needs A", "", (Blocker("step", "A has to end first", "A"), PAUSE)),
    )


def test_an_open_step_run_is_not_blocked_by_the_pause() -> None:
    steps = pipeline(do("A"), do("B", "A"))
    open_one, waiting = next_steps(steps, [Past("A", 1, 1, Status.RUNNING)], paused=True)
    assert open_one == Blocked("A", "A attempt 1 is running")
    assert isinstance(waiting, Blocked)
    assert waiting.blockers == (Blocker("step", "A has to end first", "A"), PAUSE)


def test_an_item_waits_for_a_place() -> None:
    steps = pipeline(do("A", over="TWO", parallel=1))
    _, waiting = next_steps(steps, [Past("A", 1, 1, Status.RUNNING, item="0")], inputs=INPUTS)
    assert waiting == Blocked(
        "A", "1 items of A run at once", "1", (Blocker("parallel", "1 items of A run at once", "A"),)
    )
