"""Walking every branch with stub agents: what counts as one, what is found, and what stays uncovered."""

from __future__ import annotations

from pathlib import Path

import pytest

from djinn.pipelines.loader import load_folder, load_text
from djinn.pipelines.simulate import Answer, Coverage, explore, play
from djinn.pipelines.simulation.report import missing, story

PIPELINES = Path(__file__).resolve().parents[2] / "pipelines"
LOOPS = """\
id: loops
steps:
  - {id: PLAN, agent: a, input: x, outputs: [TASKS], onComplete: BUILD}
  - {id: BUILD, run: x, loop: {over: TASKS, onEachComplete: PARTS, onAllComplete: ASK}}
  - {id: PARTS, run: x, loop: {over: current_item.parts, onEachComplete: TEST}, onComplete: NOTE}
  - id: TEST
    run: x
    outputs: [V]
    retries: {max: 2, on: [timeout]}
    onResult:
      pass: {continueLoop: true}
      flaky: {retry: true, maxRetries: 2}
      fail: {goto: PARTS, notify: {agent: a, message: no}}
    onComplete: PARTS
  - {id: NOTE, run: x, onComplete: BUILD}
  - {id: ASK, approve: {expires: 1h}, input: ok?, onResult: {rejected: {goto: PLAN}}, onComplete: SHIP}
  - {id: SHIP, uses: other}
"""
GRAPH = """\
id: graph
inputs: {strict: {type: boolean, default: false}, paths: list}
steps:
  - {id: LOOK, run: x, foreach: {over: inputs.paths}, outputs: [R], continueOnError: true}
  - {id: TRY, run: x, matrix: {n: [1, 2]}, outputs: [N]}
  - {id: JUDGE, agent: a, input: x, needs: [LOOK, TRY], outputs: [SCORE, WORD], when: "R | length > 4 or inputs.strict"}
  - {id: MEND, agent: a, input: x, needs: [JUDGE], when: "SCORE > 7 and WORD == 'go'"}
  - {id: ASK, approve: true, input: x, needs: [JUDGE], when: "steps.JUDGE.outputs.WORD in ['ask', 'beg']"}
  - {id: LAST, run: x, needs: [MEND, ASK], when: "steps.ASK.status == 'failed' and steps.MEND.status == 'skipped'"}
"""


def coverage(text: str) -> Coverage:
    return explore(load_text(text, file="a.yaml").pipeline)


def left(text: str) -> list[str]:
    return [str(branch) for branch in coverage(text).uncovered]


@pytest.mark.parametrize("text", [LOOPS, GRAPH], ids=["routed", "graph"])
def test_every_branch_of_a_file_with_everything_is_walked(text: str) -> None:
    found = coverage(text)
    assert [str(branch) for branch in found.uncovered] == []
    assert (found.percent, len(found.plays) <= len(found.branches)) == (100.0, True)


@pytest.mark.parametrize("name", sorted(path.stem for path in PIPELINES.glob("*.yaml")))
def test_every_branch_of_what_ships_is_walked(name: str) -> None:
    known = {key: loaded.pipeline for key, loaded in load_folder(PIPELINES).pipelines.items()}
    assert [str(branch) for branch in explore(known[name], known).uncovered] == []


def test_the_same_file_is_always_walked_in_the_same_way() -> None:
    assert coverage(GRAPH) == coverage(GRAPH)


UNREACHABLE = {
    "a condition that contradicts itself": (
        "id: a\nsteps: [{id: A, run: x, outputs: [V]}, {id: B, run: x, needs: [A], when: \"V == 'x' and V == 'y'\"}]",
        "step B: key when: the condition is true",
    ),
    "a condition that contradicts the one before": (
        "id: a\nsteps: [{id: A, run: x, outputs: [V]}, {id: B, run: x, needs: [A], when: V == 'x'},"
        " {id: C, run: x, needs: [B], when: V == 'y'}]",
        "step C: key when: the condition is true",
    ),
    "a number that a script cannot give": (
        "id: a\nsteps: [{id: A, run: x, outputs: [V]}, {id: B, run: x, needs: [A], when: V == 3}]",
        "step B: key when: the condition is true",
    ),
    "a result that the schema does not know": (
        "id: a\nsteps: [{id: A, agent: a, input: x, onResult: {maybe: {goto: B}}, onComplete: B, outputSchema:"
        " {type: object, properties: {V: {enum: [true, false]}}}, outputs: [V]}, {id: B, run: x}]",
        "step A: key onResult.maybe: the result is given",
    ),
    "a step that nothing leads to": (
        "id: a\nsteps: [{id: A, run: x, onComplete: B}, {id: B, run: x}, {id: C, run: x}]",
        "step C: it begins",
    ),
}


@pytest.mark.parametrize(("text", "branch"), UNREACHABLE.values(), ids=UNREACHABLE.keys())
def test_what_cannot_be_reached_stays_uncovered(text: str, branch: str) -> None:
    assert branch in left(text)


def test_an_empty_list_that_the_schema_rules_out_is_no_branch() -> None:
    text = (
        "id: a\nsteps: [{id: A, agent: a, input: x, onComplete: L, outputSchema: {type: object, properties:"
        " {T: {type: array, minItems: 1, items: {type: string}}}}, outputs: [T]}, {id: L, run: x, loop: {over: T}}]"
    )
    words = [branch.word for branch in coverage(text).branches if branch.key == ("loop", "over")]
    assert (words, left(text)) == (["one item", "several items"], [])


def test_fixed_inputs_are_not_tried_out() -> None:
    found = explore(load_text(GRAPH, file="a.yaml").pipeline, inputs={"strict": False, "paths": ["a"]})
    assert "step JUDGE: key when: the condition is true" in map(str, found.uncovered)


def test_a_missing_branch_is_told_with_file_line_step_and_key() -> None:
    text = UNREACHABLE["a step that nothing leads to"][0].replace("}, {", "},\n  {")
    lines = list(missing(coverage(text), "a.yaml", text.encode()))
    assert lines[0] == "a.yaml:4: step C: not covered: it begins"


def test_a_play_is_told_with_virtual_times() -> None:
    text = "id: a\nsteps: [{id: A, run: x, retries: {max: 1, backoff: 30}}]"
    (walk,) = [one for one in coverage(text).plays if "again" in str(one.found)]
    assert list(story(walk))[1:4] == [
        "  00:01:00 A visit 1 attempt 1 failed (error)",
        "  00:02:30 A visit 1 attempt 2 failed (error)",
        "  00:02:30 the run failed (step A failed after 2 attempts: error)",
    ]


def test_the_clock_of_a_play_runs_parallel_steps_at_once() -> None:
    text = "id: a\nsteps: [{id: A, run: x}, {id: B, run: x}, {id: C, run: x, needs: [A, B]}]"
    seconds = {"A": 10.0, "B": 70.0, "C": 5.0}
    played = play(load_text(text, file="a.yaml").pipeline, lambda ask: Answer(seconds=seconds[ask.step.id]))
    assert [(event.at, event.data["step"]) for event in played.events if event.type == "step_finished"] == [
        (10.0, "A"), (70.0, "B"), (75.0, "C"),
    ]  # fmt: skip


def test_a_play_that_goes_on_for_too_long_is_cut() -> None:
    text = "id: a\nsteps: [{id: A, run: x, onComplete: A, maxVisits: 50}]"
    played = play(load_text(text, file="a.yaml").pipeline, lambda ask: Answer(), most_step_runs=20)
    assert (played.is_cut, len(played.history)) == (True, 20)
