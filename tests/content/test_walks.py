"""The ways that the shipped pipelines go, by what their steps say: played by the flow itself, without containers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from djinn.pipelines.flow import Finish, Past, Refuse, Skip, Start, Status, Tell, named, next_steps
from djinn.pipelines.loader import load_file
from djinn.pipelines.names import names_for
from djinn.pipelines.schema import JSON, Pipeline
from djinn.pipelines.template import render

PIPELINES = Path(__file__).resolve().parents[2] / "pipelines"
Says = Mapping[str, JSON]
FAILS: Says = {"fails": True}


class Walk:
    """A run of a pipeline in which each step says the next of the things that are written down for it.

    `REVIEW[1]` goes before `REVIEW`; the last thing is said again; a step without anything says nothing.
    `path` is what ran, in order.
    """

    def __init__(self, name: str, says: Mapping[str, Sequence[Says]], **inputs: JSON) -> None:
        self.pipeline: Pipeline = load_file(PIPELINES / f"{name}.yaml").pipeline
        self.inputs = {one.name: one.default for one in self.pipeline.inputs} | inputs
        self.history: list[Past] = []
        self.path: list[str] = []
        self.prompts: dict[str, list[str]] = {}
        self.told: list[str] = []
        self._says = {step: list(things) for step, things in says.items()}
        self.finish = self._play()

    def _play(self) -> Finish:
        for _ in range(500):
            decisions = next_steps(self.pipeline, self.history, inputs=self.inputs)
            for decision in decisions:
                if isinstance(decision, Finish):
                    return decision
                self._apply(decision)
        raise AssertionError(f"the run does not end: {self.path[-20:]}")

    def _apply(self, decision: object) -> None:
        if isinstance(decision, Tell):
            self.told.append(decision.agent)
        elif isinstance(decision, Skip):
            self.history.append(Past(decision.step, decision.visit, 1, Status.SKIPPED, item=decision.item))
        elif isinstance(decision, Refuse):
            raise AssertionError(decision.message)
        elif isinstance(decision, Start):
            self._run(decision)

    def _run(self, start: Start) -> None:
        things = self._says.get(named(start.step, start.item)) or self._says.get(start.step, [{}])
        says = things.pop(0) if len(things) > 1 else things[0]
        past = Past(
            start.step, start.visit, start.attempt, Status.FAILED if says is FAILS else Status.SUCCEEDED,
            reason="error" if says is FAILS else "", outputs={} if says is FAILS else says,
            item=start.item, item_value=start.item_value, bases=start.bases,
        )  # fmt: skip
        step = self.pipeline.step(start.step)
        names = names_for(self.pipeline, self.history, self.inputs, step, past)
        self.prompts.setdefault(start.step, []).append(render(step.run or step.input, names).text)
        self.history.append(past)
        self.path.append(named(start.step, start.item))


PASS, MENDED = {"TESTS": "PASS", "TEST_NOTES": "fine"}, {"CHANGE": "mended"}
APPROVED, AGAIN = (
    {"VERDICT": "APPROVED", "REVIEW_NOTES": "good"},
    {"VERDICT": "CHANGES_REQUESTED", "REVIEW_NOTES": "R1"},
)
TASKS = [{"title": t, "goal": "g", "acceptance": ["a"], "places": ["p"]} for t in ("First", "Second")]
TEAM: dict[str, list[Says]] = {
    "SPEC": [{"SPEC": "spec"}],
    "DESIGN": [{"DESIGN_STATE": "READY", "DESIGN": "design", "QUESTIONS": ""}],
    "UX": [{"UX": "ux"}],
    "DIVIDE": [{"tasks": TASKS}],
    "BUILD": [{"CHANGE": "first change"}, {"CHANGE": "second change"}],
    "TEST": [PASS],
    "REVIEW": [APPROVED],
    "MEND": [{"CHANGE": "mended"}],
    "RELEASE": [{"RELEASE_PLAN": "plan", "RISK": "LOW"}],
    "APPROVE": [{"DECISION": "approved", "COMMENT": ""}],
    "DEPLOY": [{"DEPLOYED": "no"}],
}
BEGIN = ["SPEC", "DESIGN", "UX", "DIVIDE"]
PIECE = ["BUILD[{}]", "TEST[{}]", "REVIEW[{}]", "COMMIT[{}]"]
END = ["RELEASE", "APPROVE", "DEPLOY"]


def _pieces(*numbers: int) -> list[str]:
    return [step.format(number) for number in numbers for step in PIECE]


def test_a_team_builds_each_piece_and_releases_once() -> None:
    walk = Walk("engineering", TEAM, request="r")
    assert walk.path == [*BEGIN, *_pieces(0, 1), *END]
    assert walk.finish.status == "succeeded"


def test_the_second_piece_is_told_of_the_first_one() -> None:
    first, second = Walk("engineering", TEAM, request="r").prompts["BUILD"]
    assert "Build this piece of work, and no other: Second" in second
    assert "- First: first change" in second
    assert "Built and committed already" not in first


def test_what_tester_and_reviewer_find_is_mended_at_the_same_piece() -> None:
    says = {**TEAM, "TEST": [{"TESTS": "FAIL", "TEST_NOTES": "T1"}, PASS], "REVIEW": [AGAIN, APPROVED]}
    walk = Walk("engineering", says, request="r")
    piece = ["BUILD[0]", "TEST[0]", "MEND[0]", "TEST[0]", "REVIEW[0]", "MEND[0]", "TEST[0]", "REVIEW[0]", "COMMIT[0]"]
    assert walk.path == [*BEGIN, *piece, *_pieces(1), *END]
    by_tester, by_reviewer = walk.prompts["MEND"]
    assert ("T1" in by_tester, "R1" in by_reviewer, "T1" in by_reviewer) == (True, True, False)


@pytest.mark.parametrize("word", ["", "PASSED", "Approved, with remarks"])
def test_a_tester_or_reviewer_who_mumbles_lets_nothing_pass(word: str) -> None:
    for step, output in (("TEST", "TESTS"), ("REVIEW", "VERDICT")):
        walk = Walk("engineering", {**TEAM, step: [{output: word}]}, request="r")
        assert (walk.finish.status, walk.finish.reason) == ("failed", "visits")
        assert "COMMIT[0]" not in walk.path


def test_an_unclear_specification_goes_back_with_the_questions() -> None:
    unclear = {"DESIGN_STATE": "unclear", "DESIGN": "", "QUESTIONS": "Which one?"}
    walk = Walk("engineering", {**TEAM, "DESIGN": [unclear, *TEAM["DESIGN"]]}, request="r")
    assert walk.path[:5] == ["SPEC", "DESIGN", "SPEC", "DESIGN", "UX"]
    assert "Which one?" in walk.prompts["SPEC"][1]
    assert walk.told == ["ux-designer"]


def test_a_rejected_release_is_reworked_and_asked_for_again() -> None:
    rejected = {"DECISION": "rejected", "COMMENT": "Too bold."}
    says = {**TEAM, "APPROVE": [rejected, *TEAM["APPROVE"]], "REWORK": [{"REWORK": "made smaller"}]}
    walk = Walk("engineering", says, request="r")
    assert walk.path[-6:] == ["RELEASE", "APPROVE", "REWORK", "RELEASE", "APPROVE", "DEPLOY"]
    assert "Too bold." in walk.prompts["REWORK"][0]
    assert "made smaller" in walk.prompts["RELEASE"][1]


def test_a_release_that_is_rejected_again_and_again_fails() -> None:
    says = {**TEAM, "APPROVE": [{"DECISION": "rejected", "COMMENT": "No."}]}
    walk = Walk("engineering", says, request="r")
    assert (walk.finish.status, walk.finish.reason, "DEPLOY" in walk.path) == ("failed", "visits", False)


WAYS = {
    "a bug is fixed": (
        "bugfix",
        {"REPRODUCE": [{"REPRODUCED": "YES"}], "CHECK": [{"CHECK": "pass"}], "REVIEW": [APPROVED]},
        ["REPRODUCE", "FIX", "CHECK", "REVIEW", "CLOSE"],
    ),
    "a bug that nobody sees": ("bugfix", {"REPRODUCE": [{"REPRODUCED": "NO"}]}, ["REPRODUCE", "ASK"]),
    "a fix that breaks tests": (
        "bugfix",
        {"REPRODUCE": [{"REPRODUCED": "yes"}], "CHECK": [{"CHECK": "fail"}, {"CHECK": "none"}], "REVIEW": [APPROVED]},
        ["REPRODUCE", "FIX", "CHECK", "FIX", "CHECK", "REVIEW", "CLOSE"],
    ),
    "a feature": (
        "feature",
        {"CHECK": [{"CHECK": "pass"}], "REVIEW": [AGAIN, APPROVED]},
        ["SPEC", "DESIGN", "BUILD", "CHECK", "REVIEW", "BUILD", "CHECK", "REVIEW", "DOCUMENT"],
    ),
    "a card": (
        "execute",
        {"BUILD": [{"STATE": "DONE"}], "CHECK": [{"CHECK": "none"}], "REVIEW": [APPROVED]},
        ["BUILD", "CHECK", "REVIEW", "REPORT"],
    ),
    "a card that cannot be done": ("execute", {"BUILD": [{"STATE": "BLOCKED"}]}, ["BUILD", "REPORT"]),
    "a plan": ("planning", {}, ["UNDERSTAND", "REQUIRE", "APPROACH", "DIVIDE"]),
    "a repository": (
        "import",
        {"VERIFY": [{"NOTES_STATE": "WRONG"}, {"NOTES_STATE": "RIGHT"}]},
        ["READ", "MAP", "WRITE", "VERIFY", "WRITE", "VERIFY", "PROPOSE"],
    ),
    "an issue": (
        "resolve",
        {"TRIAGE": [{"KIND": "FEATURE"}], "CHECK": [{"CHECK": "pass"}], "REVIEW": [APPROVED]},
        ["TRIAGE", "CHANGE", "CHECK", "REVIEW", "DESCRIBE", "PREPARE"],
    ),
    "an unclear issue": ("resolve", {"TRIAGE": [{"KIND": "UNCLEAR"}]}, ["TRIAGE", "REPLY"]),
}


@pytest.mark.parametrize(("name", "says", "path"), WAYS.values(), ids=WAYS.keys())
def test_a_run_goes_this_way(name: str, says: dict[str, list[Says]], path: list[str]) -> None:
    walk = Walk(name, says)
    assert (walk.path, walk.finish.status) == (path, "succeeded")


REVIEWED: dict[str, list[Says]] = {
    "COLLECT": [{"FROM": "abc", "CHANGES": "c"}],
    "REVIEW": [{"FINDINGS": "something"}],
    "GATHER": [{"REPORT": "r"}],
    "VERDICT": [{"verdict": "request_changes", "summary": "s", "blockers": [{"place": "a.py:1", "problem": "p"}]}],
    "PROVE": [{"PROOF": "x"}],
}


def test_a_reviewer_who_fails_leaves_a_side_open_and_stops_nobody() -> None:
    walk = Walk("parallel-review", {**REVIEWED, "REVIEW[1]": [FAILS]})
    assert (walk.path[-3:], walk.finish.status) == (["GATHER", "VERDICT", "PROVE"], "succeeded")
    assert walk.prompts["GATHER"][0].count("This reviewer did not finish") == 1
    assert walk.prompts["GATHER"][0].count("something") == 4


def test_a_review_that_approves_proves_nothing() -> None:
    says = {**REVIEWED, "VERDICT": [{"verdict": "approve", "summary": "s", "blockers": []}]}
    walk = Walk("parallel-review", says, aspects=["a"])
    assert ("PROVE" in walk.path, walk.finish.status) == (False, "succeeded")
