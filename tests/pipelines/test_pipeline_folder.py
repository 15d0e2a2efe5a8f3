"""Pipelines of a folder that use each other."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from djinn.pipelines.loader import load_file, load_folder
from djinn.pipelines.schema import JSON

INNER = """\
inputs: {topic: text, level: {type: integer, default: 1, choices: [1, 2]}, tags: {type: list, required: false}}
steps: [{id: A, run: ls, outputs: [REPORT]}]
"""


def folder(path: Path, **files: str) -> Path:
    for name, text in files.items():
        (path / f"{name}.yaml").write_text(text)
    return path


def user(of: str, keys: str = "") -> str:
    return f"steps:\n  - id: U\n    uses: {of}\n    {keys}\n"


def problems(path: Path) -> dict[str, list[str]]:
    found = load_folder(path).problems
    return {name: [str(problem).partition("/")[2] for problem in found[name]] for name in found}


def test_pipelines_that_fit_load_with_those_that_they_use(tmp_path: Path) -> None:
    folder(tmp_path, outer=user("inner", 'with: {topic: "{{ x }}", level: "2", tags: "[1]"}'), inner=INNER)
    assert (list(load_folder(tmp_path).pipelines), problems(tmp_path)) == (["inner", "outer"], {})


def test_a_file_alone_does_not_know_what_it_uses(tmp_path: Path) -> None:
    folder(tmp_path, outer=user("nowhere"))
    assert load_file(tmp_path / "outer.yaml").pipeline.first_step.uses == "nowhere"


def test_a_used_pipeline_has_to_be_there(tmp_path: Path) -> None:
    folder(tmp_path, outer=user("iner"), inner="steps: [{id: A, run: ls}]")
    message = "outer.yaml:3: step U: key uses: there is no pipeline 'iner'; did you mean 'inner'?"
    assert problems(tmp_path) == {"outer.yaml": [message]}


def test_what_uses_a_pipeline_with_problems_has_one(tmp_path: Path) -> None:
    folder(tmp_path, a=user("b"), b=user("c"), c="steps: 3")
    found = problems(tmp_path)
    assert found["b.yaml"] == ["b.yaml:3: step U: key uses: pipeline 'c' has problems of its own"]
    assert found["a.yaml"] == ["a.yaml:3: step U: key uses: pipeline 'b' has problems of its own"]


def test_each_pipeline_of_a_circle_is_a_problem(tmp_path: Path) -> None:
    folder(tmp_path, a=user("b"), b=user("c"), c=user("a"), d=user("d"), e="steps: [{id: A, run: ls}]")
    text = "yaml:3: step U: key uses: pipelines use each other:"
    assert problems(tmp_path) == {
        "a.yaml": [f"a.{text} a -> b -> c -> a"],
        "b.yaml": [f"b.{text} b -> c -> a -> b"],
        "c.yaml": [f"c.{text} c -> a -> b -> c"],
        "d.yaml": [f"d.{text} d -> d"],
    }
    assert list(load_folder(tmp_path).pipelines) == ["e"]


def test_pipelines_use_each_other_five_levels_deep(tmp_path: Path) -> None:
    names = "abcdefg"
    chain = {name: user(used) for name, used in pairwise(names)}
    folder(tmp_path, **chain, g="steps: [{id: A, run: ls}]")
    message = "a.yaml:3: step U: key uses: pipelines may use each other 5 levels deep; 'b' uses too many"
    assert problems(tmp_path) == {"a.yaml": [message]}


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ("with: {topik: x}", "outer.yaml:4: step U: key with.topik: pipeline 'inner' has no such input; did you mean"),
        ("with: {level: 2}", "outer.yaml:3: step U: key with: pipeline 'inner' needs the input 'topic'"),
        ("with: {topic: null}", "outer.yaml:3: step U: key with: pipeline 'inner' needs the input 'topic'"),
        ("with: {topic: a, level: x}", "step U: key with.level: must be a whole number, not 'x'"),
        ("with: {topic: a, level: 3}", "step U: key with.level: is not one of the choices"),
        ("with: {topic: [a]}", "step U: key with.topic: must be text, not a list"),
    ],
)
def test_inputs_that_the_used_pipeline_does_not_take_are_problems(tmp_path: Path, given: str, error: str) -> None:
    folder(tmp_path, outer=user("inner", given), inner=INNER)
    assert error in "\n".join(problems(tmp_path)["outer.yaml"])


def test_an_output_that_the_used_pipeline_never_gives_is_a_warning(tmp_path: Path) -> None:
    folder(tmp_path, outer=user("inner", "with: {topic: a}\n    outputs: [REPORT, REPROT]"), inner=INNER)
    (warning,) = load_folder(tmp_path).pipelines["outer"].warnings
    assert "5: step U: key outputs: pipeline 'inner' never gives the output 'REPROT'; did you mean" in str(warning)


def test_a_broken_file_does_not_take_the_id_of_a_good_one(tmp_path: Path) -> None:
    folder(tmp_path, inner="steps: 3", other="id: inner\nsteps: [{id: A, run: ls}]", outer=user("inner"))
    assert list(load_folder(tmp_path).pipelines) == ["inner", "outer"]


def test_a_pipeline_that_is_mended_mends_what_uses_it(tmp_path: Path) -> None:
    folder(tmp_path, outer=user("inner"), inner="steps: 3")
    before = list(load_folder(tmp_path).pipelines)
    folder(tmp_path, inner="steps: [{id: A, run: ls}]  # mended")
    assert (before, list(load_folder(tmp_path).pipelines)) == ([], ["inner", "outer"])


def test_a_folder_of_pipelines_that_all_use_each_other_is_read_in_time(tmp_path: Path) -> None:
    names = [f"p{number}" for number in range(40)]
    steps: dict[str, JSON] = {}
    for name in names:
        uses = "".join(f"  - {{id: S{other}, uses: {other}}}\n" for other in names)
        steps[name] = f"steps:\n{uses}"
    folder(tmp_path, **{name: str(text) for name, text in steps.items()})
    assert len(load_folder(tmp_path).problems) == 40
