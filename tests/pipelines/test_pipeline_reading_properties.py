"""Whatever stands in a file, loading gives a pipeline that the flow can begin, or `PipelineInvalid`; nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from djinn.documents.problems import Problem
from djinn.pipelines.errors import PipelineInvalid
from djinn.pipelines.flow import next_steps
from djinn.pipelines.json_schema import PIPELINE_WORDS, STEP_WORDS, json_schema
from djinn.pipelines.loader import Loaded, load_folder, load_text
from djinn.pipelines.schema import JSON, from_snapshot, to_snapshot
from djinn.runner.artifacts import check_glob

IDS = ("A", "B", "C", "D")
NAMES = ("x", "y", "xs")
VALIDATOR = Draft202012Validator(json_schema())


def as_json(value: object) -> JSON:
    return cast("JSON", value)


ids = st.sampled_from(IDS)
expressions = st.sampled_from(
    ["x", "xs", "x == 'a' and not y", "steps.A.status", "inputs.xs", "current_item.x", "1 > 2", "a b"]
)
templates = st.sampled_from(
    ["{{ x }}", "{{ steps.B.outputs.y }}", "{{ current_item }}", "text", "{% if %}", "{{ inputs.q }}"]
)
actions: st.SearchStrategy[JSON] = st.fixed_dictionaries(
    {},
    optional={
        "goto": ids | st.none(),
        "retry": st.booleans(),
        "maxRetries": st.integers(0, 3),
        "continueLoop": st.booleans(),
        "notify": st.fixed_dictionaries({"agent": st.just("b"), "message": templates}),
    },
).map(as_json)
plausible: dict[str, st.SearchStrategy[JSON]] = {
    "outputs": st.lists(st.sampled_from(NAMES), unique=True).map(as_json),
    "input": templates,
    "onComplete": ids,
    "onResult": st.dictionaries(st.sampled_from(["ok", "OK", "approved"]), actions | st.none()).map(as_json),
    "loop": st.fixed_dictionaries(
        {"over": expressions}, optional={"onEachComplete": ids, "onAllComplete": ids}
    ).map(as_json),
    "needs": st.lists(ids, unique=True, max_size=2).map(as_json),
    "dependsOn": st.lists(ids, unique=True, max_size=2).map(as_json),
    "when": expressions,
    "foreach": expressions | st.fixed_dictionaries({"over": expressions, "parallel": st.integers(1, 3)}).map(as_json),
    "matrix": st.dictionaries(st.sampled_from(NAMES), st.lists(st.integers(0, 2)).map(as_json)).map(as_json),
    "parallel": st.integers(1, 3),
    "approve": st.sampled_from([True, False, "admin", {"by": ["ada"], "show": ["diff", "x"]}]).map(as_json),
    "uses": ids,
    "with": st.dictionaries(st.sampled_from(NAMES), templates, max_size=2).map(as_json),
    "outputSchema": st.just({"type": "object", "properties": {"x": {}, "a-b": {}}}).map(as_json),
    "continueOnError": st.booleans(),
    "artifacts": st.just(["dist/*"]),
    "run": templates,
    "agent": st.just("b"),
    "maxVisits": st.integers(1, 200),
}  # fmt: skip
anything: st.SearchStrategy[JSON] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | ids,
    lambda inner: st.lists(inner, max_size=3).map(as_json)
    | st.dictionaries(st.sampled_from([*STEP_WORDS, "over", "schema", "group"]), inner, max_size=3).map(as_json),
    max_leaves=6,
)  # fmt: skip


@st.composite
def steps(draw: st.DrawFn, step_id: str, wild: bool) -> dict[str, JSON]:
    """A step of any kind with any keys; a wild one has anything behind them."""
    kind = draw(st.sampled_from(["run", "run", "agent", "approve", "uses"]))
    step: dict[str, JSON] = {"id": step_id, kind: draw(plausible[kind])}
    for key in draw(st.lists(st.sampled_from(sorted(plausible)), unique=True, max_size=3)):
        step[key] = draw(plausible[key])
    if wild:
        step[draw(st.sampled_from(sorted(STEP_WORDS)))] = draw(anything)
    return step


@st.composite
def documents(draw: st.DrawFn) -> dict[str, JSON]:
    wild = draw(st.booleans())
    found = [draw(steps(step_id, wild)) for step_id in IDS[: draw(st.integers(1, 4))]]
    document: dict[str, JSON] = {"id": "p", "inputs": {"xs": "list"}, "steps": [*found]}
    if wild:
        document[draw(st.sampled_from(sorted(PIPELINE_WORDS.keys() - {"id", "steps"})))] = draw(anything)
    return document


def load_or_problems(document: JSON) -> tuple[Loaded | None, tuple[Problem, ...]]:
    try:
        loaded = load_text(json.dumps(document), file="any.yaml", known_agents={"b"})
    except PipelineInvalid as exc:
        return None, exc.problems
    return loaded, loaded.warnings


@settings(deadline=None, max_examples=300)
@given(documents())
def test_any_keys_of_the_language_load_or_are_refused(document: dict[str, JSON]) -> None:
    loaded, problems = load_or_problems(document)
    assert (loaded is None) == any(problem.severity == "error" for problem in problems)
    assert all(problem.line == 1 and problem.message for problem in problems)


@settings(deadline=None, max_examples=300)
@given(documents())
def test_what_loads_can_begin_survives_storage_and_follows_the_schema(document: dict[str, JSON]) -> None:
    loaded, _ = load_or_problems(document)
    if loaded is None:
        return
    assert next_steps(loaded.pipeline, (), inputs={"xs": []})
    assert from_snapshot(json.loads(json.dumps(to_snapshot(loaded.pipeline)))) == loaded.pipeline
    assert [error.message for error in VALIDATOR.iter_errors(document)] == []


@settings(deadline=None, max_examples=60)
@given(st.dictionaries(ids, st.lists(ids, max_size=3, unique=True), min_size=1))
def test_pipelines_that_use_each_other_in_any_way_load_or_are_refused(uses: dict[str, list[str]]) -> None:
    with TemporaryDirectory() as name:
        for pipeline, used in uses.items():
            found = [{"id": f"S{number}", "uses": one} for number, one in enumerate(used)] or [{"id": "S", "run": "ls"}]
            Path(name, f"{pipeline}.yaml").write_text(json.dumps({"id": pipeline, "steps": found}))
        catalogue = load_folder(Path(name))
    assert {*catalogue.pipelines, *(Path(file).stem for file in catalogue.problems)} == set(uses)
    for pipeline in catalogue.pipelines:
        assert set(uses[pipeline]) <= catalogue.pipelines.keys()


@settings(deadline=None, max_examples=300)
@given(st.text(alphabet="a/.*\\\x7f[é ", max_size=12) | st.text(max_size=300))
def test_a_pattern_of_artifacts_that_loads_is_one_that_can_be_collected(pattern: str) -> None:
    loaded, _ = load_or_problems({"id": "p", "artifacts": [pattern], "steps": [{"id": "A", "run": "ls"}]})
    if loaded is not None:
        assert check_glob(pattern) == ""
