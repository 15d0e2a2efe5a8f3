"""What holds for every pipeline, every history and every text."""

from __future__ import annotations

import json
from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st

from djinn.documents.problems import Problem
from djinn.pipelines.errors import InputsInvalid, PipelineInvalid, TemplateInvalid
from djinn.pipelines.flow import Finish, Past, Start, Status, next_steps
from djinn.pipelines.inputs import resolve_inputs
from djinn.pipelines.loader import Loaded, load_text
from djinn.pipelines.names import flat_outputs
from djinn.pipelines.schema import JSON, Pipeline, from_snapshot, to_snapshot
from djinn.pipelines.template import check_template, render, template_names

WITH_INPUTS = """\
id: p
inputs: {a: integer, b: {type: number, default: 1}, c: {type: boolean, required: false}}
steps: [{id: A, run: a}]
"""
OUTPUTS: list[JSON] = ["v", "w"]
RESULTS = ("yes", "NO", "1")
REASONS = ("error", "timeout", "lost", "runner", "rejected", "budget", "disk")
IDS = tuple("ABCDE")

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**6), 10**6)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@st.composite
def pipelines(draw: st.DrawFn) -> Pipeline:
    """A pipeline of one to five steps, linear or with any routes."""
    ids = IDS[: draw(st.integers(1, len(IDS)))]
    is_routed = draw(st.booleans())
    steps = [draw(_steps(ids, step_id, is_routed)) for step_id in ids]
    return load_text(json.dumps({"id": "p", "steps": steps}), file="p.yaml").pipeline


reasons: st.SearchStrategy[JSON] = st.lists(st.sampled_from(("error", "timeout")), unique=True).map(list)


@st.composite
def _steps(draw: st.DrawFn, ids: tuple[str, ...], step_id: str, is_routed: bool) -> dict[str, JSON]:
    step: dict[str, JSON] = {
        "id": step_id,
        "run": draw(st.sampled_from(("ls", "echo {{ v }}", "{% for a in v %}{{ a }}{% endfor %}"))),
        "outputs": OUTPUTS,
        "maxVisits": draw(st.integers(1, 4)),
        "retries": {
            "max": draw(st.integers(0, 3)),
            "backoff": draw(st.floats(0, 600, width=32)),
            "on": draw(reasons),
        },
    }
    if is_routed and draw(st.booleans()):
        step["onComplete"] = draw(st.sampled_from(ids))
    if is_routed:
        results = draw(st.lists(st.sampled_from(RESULTS), unique=True))
        step["onResult"] = {result: {"goto": draw(st.sampled_from(ids))} for result in results}
    return step


outcomes: st.SearchStrategy[tuple[Status, str, dict[str, JSON]]] = st.tuples(
    st.sampled_from((Status.SUCCEEDED,) * 6 + (Status.FAILED,) * 3 + (Status.CANCELLED, Status.SKIPPED)),
    st.sampled_from(REASONS),
    st.dictionaries(st.sampled_from(("v", "w")), st.sampled_from((*RESULTS, "other", 1, True, None)), max_size=2),
)


def most_step_runs(pipeline: Pipeline) -> int:
    return sum(step.max_visits * (step.retries.max + 1 + 5) for step in pipeline.steps)


def finished(start: Start, outcome: tuple[Status, str, dict[str, JSON]]) -> Past:
    status, reason, outputs = outcome
    return Past(start.step, start.visit, start.attempt, status, reason if status is Status.FAILED else "", outputs)


def walk(pipeline: Pipeline, data: st.DataObject) -> Iterator[list[Past]]:
    """Every history on the way of one run, from the empty one to the one that ends it."""
    history: list[Past] = []
    while True:
        yield history
        (decision,) = next_steps(pipeline, history)
        if not isinstance(decision, Start):
            return
        history = [*history, finished(decision, data.draw(outcomes))]


@settings(deadline=None, max_examples=150)
@given(pipelines(), st.data())
def test_every_run_ends(pipeline: Pipeline, data: st.DataObject) -> None:
    for history in walk(pipeline, data):
        assert len(history) <= most_step_runs(pipeline)
    (decision,) = next_steps(pipeline, history)
    assert isinstance(decision, Finish)


@settings(deadline=None, max_examples=150)
@given(pipelines(), st.lists(st.sampled_from((Status.SUCCEEDED, Status.FAILED)), min_size=1), st.sampled_from(REASONS))
def test_a_run_that_always_goes_the_same_way_ends(pipeline: Pipeline, statuses: list[Status], reason: str) -> None:
    history: list[Past] = []
    (decision,) = next_steps(pipeline, history)
    while isinstance(decision, Start):
        status = statuses[len(history) % len(statuses)]
        history.append(finished(decision, (status, reason, {"v": "yes"})))
        assert len(history) <= most_step_runs(pipeline)
        (decision,) = next_steps(pipeline, history)


@settings(deadline=None, max_examples=100)
@given(pipelines(), st.data())
def test_no_step_visit_and_attempt_is_started_twice(pipeline: Pipeline, data: st.DataObject) -> None:
    for history in walk(pipeline, data):
        started = [(past.step, past.visit, past.attempt) for past in history]
        assert len(set(started)) == len(started)


@settings(deadline=None, max_examples=100)
@given(pipelines(), st.data(), st.sampled_from((Status.QUEUED, Status.RUNNING, Status.WAITING)), st.booleans())
def test_nothing_starts_or_ends_while_something_is_open(
    pipeline: Pipeline, data: st.DataObject, status: Status, cancelled: bool
) -> None:
    for history in walk(pipeline, data):
        at = data.draw(st.integers(0, len(history)))
        still_open = Past(pipeline.first_step.id, 1, 99, status)
        decisions = next_steps(pipeline, [*history[:at], still_open, *history[at:]], cancelled=cancelled)
        assert not any(isinstance(decision, (Start, Finish)) for decision in decisions)


@settings(deadline=None, max_examples=100)
@given(pipelines(), st.data())
def test_nothing_starts_after_a_cancel(pipeline: Pipeline, data: st.DataObject) -> None:
    for history in walk(pipeline, data):
        assert [type(one) for one in next_steps(pipeline, history, cancelled=True)] == [Finish]


@settings(deadline=None, max_examples=100)
@given(pipelines(), st.data())
def test_the_same_history_gives_the_same_decision(pipeline: Pipeline, data: st.DataObject) -> None:
    for history in walk(pipeline, data):
        again = from_snapshot(to_snapshot(pipeline))
        assert next_steps(again, tuple(history)) == next_steps(pipeline, history)
        assert flat_outputs(history).keys() <= {"v", "w"}


@settings(deadline=None)
@given(pipelines())
def test_a_snapshot_survives_json_unchanged(pipeline: Pipeline) -> None:
    assert from_snapshot(json.loads(json.dumps(to_snapshot(pipeline)))) == pipeline


def load_or_problems(text: str | bytes) -> tuple[Loaded | None, tuple[Problem, ...]]:
    try:
        loaded = load_text(text, file="any.yaml", known_agents={"b"})
    except PipelineInvalid as exc:
        return None, exc.problems
    return loaded, loaded.warnings


YAML_PARTS = [
    *[
        "id: a\n",
        "steps:\n",
        "  - ",
        "id: A\n",
        "    run: ls\n",
        "    agent: b\n",
        "{",
        "}",
        "[",
        "]",
        ": ",
        "\n",
        "  ",
    ],
    *[
        "&a ",
        "*a ",
        "!!x ",
        "|\n",
        ">-\n",
        "'",
        '"',
        "#",
        "? ",
        "---\n",
        "\t",
        "{{ x }}",
        "{% if %}",
        "onResult: ",
        "é",
    ],
    *["inputs: ", "defaults: ", "retries: ", "timeout: ", "30m\n", "null\n", "- \n", "goto: A\n", "\\x00", "%", "@"],
]
yaml_like = st.lists(
    st.sampled_from(YAML_PARTS),
    max_size=40,
).map("".join)


@settings(deadline=None, max_examples=500)
@given(st.text() | st.binary() | yaml_like)
def test_any_text_is_a_pipeline_or_is_refused(text: str | bytes) -> None:
    loaded, problems = load_or_problems(text)
    assert (loaded is None) == any(problem.severity == "error" for problem in problems)
    assert all(problem.line >= 1 and problem.message for problem in problems)


@settings(deadline=None, max_examples=500)
@given(st.dictionaries(st.sampled_from(["id", "steps", "inputs", "agents", "defaults", "workspace", "x"]), json_values))
def test_any_data_is_a_pipeline_or_is_refused(data: dict[str, JSON]) -> None:
    keys = ["id", "run", "agent", "outputs", "onResult", "onComplete", "dependsOn", "retries", "timeout", "resources"]
    steps = data.get("steps")
    if isinstance(steps, list):
        data["steps"] = [dict(zip(keys, steps, strict=False))]
    loaded, problems = load_or_problems(json.dumps(data))
    assert (loaded is None) == any(problem.severity == "error" for problem in problems)


TEMPLATE_PARTS = [
    *[
        "{{ ",
        " }}",
        "{% ",
        " %}",
        "if ",
        "else",
        "endif",
        "for x in ",
        "endfor",
        "x",
        "y",
        ".z",
        "[0]",
        "['z']",
        "|upper",
    ],
    *[
        "|join(",
        "|default('",
        "')",
        "|tojson",
        "|indent(3)",
        " == ",
        " < ",
        " in ",
        "not ",
        " and ",
        " is defined",
        "~",
    ],
    *[
        "{# ",
        " #}",
        "{% raw %}",
        "{% endraw %}",
        "1",
        "'a'",
        "(",
        ")",
        "**",
        "set ",
        "-",
        "{%- ",
        "\\",
        "\n",
        "__class__",
    ],
    *["{{ x }}", "{{ y.z|default(x) }}", "{% for x in y %}", "{% endfor %}", "{% if x %}", "{% endif %}"],
]
template_like = st.lists(
    st.sampled_from(TEMPLATE_PARTS),
    max_size=25,
).map("".join)


@settings(deadline=None, max_examples=500)
@given(st.text() | template_like, st.dictionaries(st.sampled_from(["x", "y"]), json_values))
def test_any_template_renders_or_is_refused(text: str, names: dict[str, JSON]) -> None:
    problems = check_template(text)
    try:
        rendered = render(text, names, max_bytes=4096)
    except TemplateInvalid:
        return
    assert problems == []
    assert len(rendered.text.encode()) <= 4096
    assert "\x00" not in rendered.text
    roots = {name.split(".")[0].split("[")[0] for name in rendered.undefined}
    assert roots <= template_names(text) | {"(expression)", "loop", "x"}


def values_or_problems(given_inputs: dict[str, JSON]) -> tuple[dict[str, JSON], dict[str, str]]:
    try:
        return resolve_inputs(load_text(WITH_INPUTS, file="p.yaml").pipeline, given_inputs), {}
    except InputsInvalid as exc:
        return {}, exc.problems


@settings(deadline=None, max_examples=300)
@given(st.dictionaries(st.sampled_from(["a", "b", "c", "q"]), json_values))
def test_any_inputs_are_taken_or_refused(given_inputs: dict[str, JSON]) -> None:
    values, problems = values_or_problems(given_inputs)
    assert bool(values) != bool(problems)
    assert problems.keys() <= {"a", "b", "c", "q"}
    json.dumps(values, allow_nan=False)
