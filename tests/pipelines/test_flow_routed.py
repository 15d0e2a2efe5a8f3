"""The rules of the routed family, each once: pipelines and answers, and the way that the token takes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from djinn.pipelines.flow import Tell
from djinn.pipelines.schema import Approve, Loop, Notify, Pipeline, Retries, Route, Step, WorkspaceSource
from djinn.pipelines.simulate import Answer, Ask, Played, play

JSON = Any
Says = dict[str, list[Answer]]
INPUTS = {"TWO": ["a", "b"], "NONE": [], "TEXT": '["a"]', "MAP": {"a": 1}, "PARTS": [{"in": [1, 2]}, {"in": [3]}]}
FAIL = Answer("failed", "error")


def do(name: str, **keys: Any) -> Step:
    return Step(name, "run", run="x", outputs=("V",), retries=Retries(0), **keys)


def v(value: JSON) -> Answer:
    return Answer(outputs={"V": value})


def walked(steps: tuple[Step, ...], says: Says) -> Played:
    """The run in which each step says the next of what is written down for it, and at last that again."""
    said = {name: list(answers) for name, answers in says.items()}

    def answer(ask: Ask) -> Answer:
        answers = said.get(ask.step.id, [v("ok")])
        return answers.pop(0) if len(answers) > 1 else answers[0]

    return play(Pipeline("p", "p", "", "", (), WorkspaceSource(), steps), answer, inputs=INPUTS)


def way(played: Played) -> str:
    """`STEP[item]` of each step run; a later visit as `2`, a later attempt as `'`, a skip in parentheses."""
    words = []
    for past in played.history:
        word = past.step + (f"[{past.item}]" if past.item else "")
        word += str(past.visit) if past.visit > 1 else ""
        word += "'" * (past.attempt - 1)
        words.append(f"({word})" if past.status == "skipped" else word)
    return " ".join(words)


NEXT, BACK = Route(continue_loop=True), Route(goto="L")
CHAIN = (
    do("L", loop=Loop("TWO", "C", "Z")),
    do("C", on_result={"ok": NEXT, "back": BACK, "out": Route(goto="Z"), "again": Route(goto="C")}, max_visits=2),
    do("Z"),
)
NESTED = (
    do("L", loop=Loop("PARTS", "M", "Z")),
    do("M", loop=Loop("current_item.in", "C", "E")),
    do("C", on_result={"ok": NEXT, "outer": BACK, "inner": Route(goto="M"), "out": Route(goto="Z")}),
    do("E", on_complete="L"),
    do("Z"),
)
ASK = Step("Q", "approve", approve=Approve(expires_seconds=60))

TABLE: dict[str, tuple[tuple[Step, ...], Says, str, str]] = {
    "without routes the order of the file": ((do("A"), do("B")), {}, "A B", "succeeded"),
    "a key leads on, compared as folded text": (
        (do("A", on_result={"Yes": Route(goto="C")}, on_complete="B"), do("B"), do("C")),
        {"A": [v(" YES\n")]}, "A C", "succeeded",
    ),
    "no key goes on by onComplete": (
        (do("A", on_result={"Yes": Route(goto="C")}, on_complete="B"), do("B"), do("C")),
        {"A": [v("no")]}, "A B", "succeeded",
    ),
    "no key and no onComplete fails the step": (
        (do("A", on_result={"y": Route(goto="B")}), do("B")), {}, "A", "unmatched",
    ),
    "a failure by a result is tried again like others": (
        (replace(do("A", on_result={"y": Route(goto="B")}), retries=Retries(1)), do("B")),
        {"A": [v("y, with nits"), v("y")]}, "A A' B", "succeeded",
    ),
    "a result that is fine goes on": ((do("A", on_result={"ok": Route()}), do("B")), {}, "A", "succeeded"),
    "else takes what no key names": (
        (do("A", on_result={"y": Route(goto="B")}, otherwise=Route(goto="C")), do("B"), do("C")),
        {"A": [v("y, but")]}, "A C", "succeeded",
    ),
    "else may ask for another try, so often": (
        (do("A", on_result={"y": Route()}, otherwise=Route(retry=True, max_retries=2)),), {"A": [v("n")]},
        "A A' A''", "retries",
    ),
    "a notice alone goes on by onComplete, not by else": (
        (
            do("A", on_result={"ok": Route(notify=Notify("x", "m"))}, on_complete="B", otherwise=Route(goto="A")),
            do("B"),
        ),
        {}, "A B", "succeeded",
    ),
    "else of an approval takes the decision that has no key": (
        (Step("Q", "approve", approve=Approve(), on_result={"approved": Route(goto="B")}, otherwise=Route(goto="C")),
         do("B"), do("C")),
        {"Q": [Answer("rejected")]}, "Q C", "succeeded",
    ),
    "an approval without a key for it goes on": (
        (Step("Q", "approve", approve=Approve(), on_result={"rejected": Route(goto="B")}), do("B")),
        {"Q": [Answer("approved")]}, "Q", "succeeded",
    ),
    "a notice alone goes on as if no key had matched": (
        (do("A", on_result={"ok": Route(notify=Notify("x", "m"))}, on_complete="B"), do("B")), {}, "A B", "succeeded",
    ),
    "a result that asks for another try": (
        (do("A", on_result={"no": Route(retry=True, max_retries=2), "ok": Route()}),),
        {"A": [v("no"), v("no"), v("ok")]},
        "A A' A''", "succeeded",
    ),
    "a result that asks too often": (
        (do("A", on_result={"no": Route(retry=True, max_retries=1)}),), {"A": [v("no")]}, "A A'", "retries",
    ),
    "another visit may ask as often again": (
        (do("A", on_result={"no": Route(retry=True), "back": Route(goto="A")}, otherwise=Route()),),
        {"A": [v("no"), v("back"), v("no"), v("ok")]}, "A A' A2 A2'", "succeeded",
    ),
    "visits are bounded": (
        (do("A", max_visits=2, on_complete="B"), do("B", on_complete="A")), {}, "A B A2 B2", "visits",
    ),
    "a loop runs for each item": (
        (do("L", loop=Loop("TWO"), on_complete="Z"), do("Z")), {}, "L[0] L[1] Z", "succeeded",
    ),
    "onAllComplete goes before onComplete": (
        (do("L", loop=Loop("TWO", None, "Y"), on_complete="Z"), do("Y"), do("Z")), {}, "L[0] L[1] Y", "succeeded",
    ),
    "after the last item nothing else is the end": (
        (do("L", loop=Loop("TWO")), do("Z", on_complete="L")), {}, "L[0] L[1]", "succeeded",
    ),
    "a loop over text that is JSON": ((do("L", loop=Loop("TEXT", None, "Z")), do("Z")), {}, "L[0] Z", "succeeded"),
    "a loop over nothing is passed by": ((do("L", loop=Loop("NONE", "C", "Z")), *CHAIN[1:]), {}, "(L) Z", "succeeded"),
    "a loop over what is no list fails": ((do("L", loop=Loop("MAP", None, "Z")), do("Z")), {}, "L", "input"),
    "a loop over what is missing fails": ((do("L", loop=Loop("GONE", None, "Z")), do("Z")), {}, "L", "input"),
    "the steps for an item carry it": (CHAIN, {}, "L[0] C[0] L[1] C[1] Z", "succeeded"),
    "continueLoop is for the next item": (
        (CHAIN[0], do("C", on_result={"ok": NEXT}, on_complete="D"), do("D", on_complete="L"), do("Z")),
        {"C": [v("ok"), v("no")]}, "L[0] C[0] L[1] C[1] D[1] Z", "succeeded",
    ),
    "a goto to the loop's step is the same item again": (
        CHAIN, {"C": [v("back"), v("ok")]}, "L[0] C[0] L[0]2 C[0]2 L[1] C[1] Z", "succeeded",
    ),
    "visits count for each item": (
        CHAIN, {"C": [v("again"), v("ok"), v("again"), v("ok")]}, "L[0] C[0] C[0]2 L[1] C[1] C[1]2 Z", "succeeded",
    ),
    "visits of one item are bounded": (CHAIN, {"C": [v("again")]}, "L[0] C[0] C[0]2", "visits"),
    "a goto out of the loop that does not say so fails the run": (
        CHAIN, {"C": [v("out")]}, "L[0] C[0]", "error",
    ),
    "a goto out of the loop at its last item leaves nothing undone": (
        CHAIN, {"C": [v("ok"), v("out")]}, "L[0] C[0] L[1] C[1] Z", "succeeded",
    ),
    "an onComplete out of the loop fails the run": (
        (CHAIN[0], do("C", on_result={"ok": NEXT}, on_complete="X"), do("X"), do("Z")), {"C": [v("no")]},
        "L[0] C[0]", "error",
    ),
    "a break ends the loop and marks what is not done": (
        (CHAIN[0], do("C", on_result={"ok": NEXT, "stop": Route(breaks=True)}), do("Z")), {"C": [v("stop")]},
        "L[0] C[0] (L[1]) Z", "succeeded",
    ),
    "a break with a goto leaves the loop to there": (
        (CHAIN[0], do("C", on_result={"ok": NEXT, "stop": Route(goto="X", breaks=True)}), do("X"), do("Z")),
        {"C": [v("stop")]}, "L[0] C[0] (L[1]) X", "succeeded",
    ),
    "a break at the last item marks nothing": (
        (CHAIN[0], do("C", on_result={"ok": NEXT, "stop": Route(breaks=True)}), do("Z")), {"C": [v("ok"), v("stop")]},
        "L[0] C[0] L[1] C[1] Z", "succeeded",
    ),
    "a break to a loop over nothing passes it by": (
        (CHAIN[0], do("C", on_result={"ok": NEXT, "stop": Route(goto="N", breaks=True)}),
         do("N", loop=Loop("NONE"), on_complete="Z"), do("Z")),
        {"C": [v("stop")]}, "L[0] C[0] (L[1]) (N) Z", "succeeded",
    ),
    "a break ends the inner loop alone": (
        (*NESTED[:2], do("C", on_result={"ok": NEXT, "stop": Route(breaks=True)}), *NESTED[3:]),
        {"C": [v("stop"), v("ok")]}, "L[0] M[0.0] C[0.0] (M[0.1]) E[0] L[1] M[1.0] C[1.0] E[1] Z", "succeeded",
    ),
    "a break with a goto may leave both loops": (
        (*NESTED[:2], do("C", on_result={"ok": NEXT, "stop": Route(goto="X", breaks=True)}), *NESTED[3:], do("X")),
        {"C": [v("stop")]}, "L[0] M[0.0] C[0.0] (M[0.1]) (L[1]) X", "succeeded",
    ),
    "a loop that was broken may be come to again": (
        (do("P", on_complete="L"), CHAIN[0],
         do("C", on_result={"ok": NEXT, "plan": Route(goto="P", breaks=True)}), do("Z")),
        {"C": [v("plan"), v("ok")]}, "P L[0] C[0] (L[1]) P2 L[0]2 C[0]2 L[1]2 C[1] Z", "succeeded",
    ),
    "a break outside of a loop fails the run": (
        (do("A", on_result={"ok": Route(breaks=True)}),), {}, "A", "error",
    ),
    "an end within the steps for an item is the next item": (
        (do("L", loop=Loop("TWO", "C", "Z")), do("C"), do("Z")), {}, "L[0] C[0] L[1] C[1] Z", "succeeded",
    ),
    "a failure within a loop ends the run": (CHAIN, {"C": [v("ok"), FAIL]}, "L[0] C[0] L[1] C[1]", "error"),
    "a loop in a loop": (
        NESTED, {}, "L[0] M[0.0] C[0.0] M[0.1] C[0.1] E[0] L[1] M[1.0] C[1.0] E[1] Z", "succeeded",
    ),
    "a goto to the inner loop's step is the same inner item again": (
        NESTED, {"C": [v("inner"), v("ok")]},
        "L[0] M[0.0] C[0.0] M[0.0]2 C[0.0]2 M[0.1] C[0.1] E[0] L[1] M[1.0] C[1.0] E[1] Z", "succeeded",
    ),
    "a goto to the outer loop's step is the same outer item again": (
        NESTED, {"C": [v("ok"), v("outer"), v("ok")]},
        "L[0] M[0.0] C[0.0] M[0.1] C[0.1] L[0]2 M[0.0]2 C[0.0]2 M[0.1]2 C[0.1]2 E[0] L[1] M[1.0] C[1.0] E[1] Z",
        "succeeded",
    ),
    "a goto out of both loops that does not say so fails the run": (
        NESTED, {"C": [v("out")]}, "L[0] M[0.0] C[0.0]", "error",
    ),
    "an approval goes on": ((do("A", on_complete="Q"), ASK, do("B")), {"Q": [Answer("approved")]}, "A Q", "succeeded"),
    "a rejection fails": ((ASK, do("B")), {"Q": [Answer("rejected")]}, "Q", "rejected"),
    "a question that expires fails": ((ASK, do("B")), {"Q": [Answer("expired")]}, "Q", "expired"),
    "a rejection with a key of its own goes on": (
        (Step("Q", "approve", approve=Approve(), on_result={"REJECTED": Route(goto="B")}), do("B")),
        {"Q": [Answer("rejected")]}, "Q B", "succeeded",
    ),
    "a step that was cancelled cancels the run": ((do("A"), do("B")), {"A": [Answer("cancelled")]}, "A", "cancelled"),
}  # fmt: skip


@pytest.mark.parametrize(("steps", "says", "path", "end"), TABLE.values(), ids=TABLE.keys())
def test_the_token_goes(steps: tuple[Step, ...], says: Says, path: str, end: str) -> None:
    played = walked(steps, says)
    assert (way(played), played.finish.reason or played.finish.status) == (path, end)


def test_the_list_of_a_loop_stays_what_it_was_when_the_token_came() -> None:
    steps = (do("P", on_complete="L"), do("L", loop=Loop("V", "C")), do("C", on_complete="L"))
    played = walked(steps, {"P": [v(["a", "b"])], "L": [v([])], "C": [v("no list")]})
    assert (way(played), [past.item_value for past in played.history]) == (
        "P L[0] C[0] L[1] C[1]", [None, "a", "a", "b", "b"],
    )  # fmt: skip


def test_a_retry_begins_with_the_files_of_before_and_the_next_step_with_what_was_left() -> None:
    steps = (
        do("A", on_complete="B"),
        do("B", on_complete="Q"),
        Step("Q", "approve", approve=Approve(), on_complete="C"),
    )
    retried = (steps[0], Step("B", "run", run="x", on_complete="Q", retries=Retries(1)), steps[2], do("C"))
    played = walked(retried, {"B": [FAIL, v("ok")]})
    assert [(past.step, past.bases) for past in played.history] == [
        ("A", ()), ("B", (1,)), ("B", (1,)), ("Q", (3,)), ("C", (3,)),
    ]  # fmt: skip


def test_a_notice_is_told_before_the_route_is_taken() -> None:
    steps = (do("A", on_result={"ok": Route(goto="B", notify=Notify("engineer", "It is {{ V }}."))}), do("B"))
    played = walked(steps, {})
    assert [one for _, one in played.applied if isinstance(one, Tell)] == [Tell("engineer", "It is {{ V }}.", 1)]
    types = [event.type for event in played.events]
    assert types[types.index("step_finished") :][:3] == ["step_finished", "notified", "step_queued"]


def test_a_goto_to_a_step_before_the_loop_comes_to_the_loop_anew() -> None:
    steps = (
        do("P", on_complete="L"),
        do("L", loop=Loop("V", "C")),
        do("C", on_result={"plan": Route(goto="P"), "ok": NEXT}),
    )
    played = walked(steps, {"P": [v(["a", "b"]), v(["c"])], "L": [Answer()], "C": [v("ok"), v("plan"), v("ok")]})
    assert way(played) == "P L[0] C[0] L[1] C[1] P2 L[0]2 C[0]2"
    assert [past.item_value for past in played.history if past.step == "L"] == ["a", "b", "c"]


def test_a_goto_to_a_step_before_the_inner_loop_stays_at_the_outer_item() -> None:
    steps = (
        do("L", loop=Loop("PARTS", "X", "Z")),
        do("X", on_complete="M"),
        do("M", loop=Loop("current_item.in", "C", "E")),
        do("C", on_result={"ok": NEXT, "before": Route(goto="X", breaks=True), "after": Route(goto="E", breaks=True)}),
        do("E", on_complete="L"),
        do("Z"),
    )
    again = walked(steps, {"C": [v("before"), v("ok"), v("after"), v("ok")]})
    assert way(again) == (
        "L[0] X[0] M[0.0] C[0.0] (M[0.1]) X[0]2 M[0.0]2 C[0.0]2 M[0.1]2 C[0.1] E[0] L[1] X[1] M[1.0] C[1.0] E[1] Z"
    )
