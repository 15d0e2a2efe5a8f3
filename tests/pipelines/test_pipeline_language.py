"""The keys of the whole language, and what each of them becomes."""

from __future__ import annotations

import pytest

from djinn.pipelines.loader import Loaded, load_text
from djinn.pipelines.schema import (
    JSON,
    Approve,
    Budget,
    Concurrency,
    Loop,
    Notify,
    OutputSchema,
    Pipeline,
    Retries,
    Route,
    Step,
    from_snapshot,
    to_snapshot,
)

LOOP = """\
id: build
inputs: {tasks: list, settings: {type: json, default: {depth: 2}}}
priority: 10
concurrency: {group: "build-{{ settings }}", limit: 2, policy: cancel-running}
budget: {usd: 2.5, tokens: 100000, minutes: 90}
artifacts: [dist/*.whl]
resources: {disk: 2g}
agents: [{id: writer}, {id: critic}]
steps:
  - id: BUILD
    agent: writer
    input: "{{ current_item }} after {{ completed_items }}"
    loop: {over: tasks, onEachComplete: TEST, onAllComplete: DEPLOY}
  - id: TEST
    run: make test ITEM={{ current_index | quote }}
    outputs: [RESULT]
    artifacts: [report.json, "**/*.log"]
    onResult:
      fail: {goto: BUILD, retry: null, notify: {agent: writer, message: "{{ RESULT }} once more"}}
      flaky: {retry: true, maxRetries: 3}
      pass: {continueLoop: true}
  - id: DEPLOY
    approve: {by: [admin, ada], count: 2, expires: 24h, show: [diff, RESULT]}
    input: Deploy {{ tasks }}?
    onResult: {rejected: {goto: BUILD}}
    onComplete: SHIP
  - id: SHIP
    uses: ship
    with: {version: "{{ RESULT }}", parts: [1, 2]}
    outputs: [URL]
"""
GRAPH = """\
id: checks
inputs: {paths: list}
steps:
  - id: FIND
    agent: scout
    outputSchema: {name: found, strict: false, schema: {type: object, properties: {files: {type: array}}}}
  - {id: LOOK, needs: FIND, when: files and inputs.paths, foreach: {over: files, parallel: 8}, run: ls, outputs: [note]}
  - {id: TRY, needs: [LOOK], matrix: {os: [linux, bsd], level: [1, 2]}, parallel: 3, run: ls, continueOnError: true}
  - {id: ASK, needs: [TRY], when: steps.TRY.status == 'failed', approve: true}
"""


def load(text: str) -> Loaded:
    return load_text(text, file="any.yaml")


def pipeline(text: str) -> Pipeline:
    loaded = load(text)
    assert loaded.warnings == ()
    return loaded.pipeline


def one_step(keys: str) -> Step:
    return load(f"id: a\nsteps:\n  - {{id: A, {keys}}}").pipeline.first_step


def test_a_loop_names_its_list_and_the_steps_around_it() -> None:
    assert pipeline(LOOP).step("BUILD").loop == Loop("tasks", "TEST", "DEPLOY")


def test_an_action_combines_one_way_to_go_with_a_notice() -> None:
    assert pipeline(LOOP).step("TEST").on_result == {
        "fail": Route(goto="BUILD", notify=Notify("writer", "{{ RESULT }} once more")),
        "flaky": Route(retry=True, max_retries=3),
        "pass": Route(continue_loop=True),
    }


def test_an_approval_says_who_how_many_how_long_and_what() -> None:
    step = pipeline(LOOP).step("DEPLOY")
    assert (step.kind, step.input) == ("approve", "Deploy {{ tasks }}?")
    assert step.approve == Approve(("admin", "ada"), 2, 86400, ("diff", "RESULT"))


def test_an_approval_gives_its_decision_unless_it_names_it() -> None:
    assert pipeline(LOOP).step("DEPLOY").outputs == ("DECISION",)
    assert one_step("approve: true, outputs: [SIGNED]").outputs == ("SIGNED",)


@pytest.mark.parametrize(
    ("value", "by"),
    [("true", ("operator",)), ("admin", ("admin",)), ("[ada, grace]", ("ada", "grace")), ("{}", ("operator",))],
)
def test_an_approval_can_be_written_for_short(value: str, by: tuple[str, ...]) -> None:
    assert one_step(f"approve: {value}").approve == Approve(by=by)


def test_a_used_pipeline_gets_its_inputs() -> None:
    step = pipeline(LOOP).step("SHIP")
    assert (step.kind, step.uses, step.given) == ("uses", "ship", {"version": "{{ RESULT }}", "parts": [1, 2]})


def test_a_pipeline_says_what_its_runs_share_and_may_use() -> None:
    found = pipeline(LOOP)
    assert found.concurrency == Concurrency("build-{{ settings }}", 2, "cancel-running")
    assert (found.priority, found.budget) == (10, Budget(2.5, 100_000, 90))
    assert found.step("TEST").resources.disk_mb == 2048


def test_a_concurrency_group_can_be_written_for_short() -> None:
    assert load("id: a\nconcurrency: deploy\nsteps: [{id: A, run: ls}]").pipeline.concurrency == Concurrency("deploy")


def test_artifacts_of_the_pipeline_are_those_of_steps_with_a_container() -> None:
    artifacts = {step.id: step.artifacts for step in pipeline(LOOP).steps}
    assert artifacts == {"BUILD": ("dist/*.whl",), "TEST": ("report.json", "**/*.log"), "DEPLOY": (), "SHIP": ()}


def test_a_graph_has_needs_conditions_and_items() -> None:
    found = pipeline(GRAPH)
    look, tried = found.step("LOOK"), found.step("TRY")
    assert found.family == "graph"
    assert (look.needs, look.when, look.over, look.parallel) == (("FIND",), "files and inputs.paths", "files", 8)
    assert (tried.matrix, tried.parallel) == ({"os": ("linux", "bsd"), "level": (1, 2)}, 3)
    assert tried.continue_on_error


def test_the_items_of_a_foreach_can_be_a_list_in_the_file() -> None:
    assert one_step('run: ls, foreach: [a, "b\'c", 3, true]').over == '["a", "b\'c", 3, true]'


def test_an_output_schema_has_a_name_and_gives_its_properties_as_outputs() -> None:
    step = pipeline(GRAPH).step("FIND")
    schema: dict[str, JSON] = {"type": "object", "properties": {"files": {"type": "array"}}}
    assert (step.output_schema, step.outputs) == (OutputSchema("found", schema, strict=False), ("files",))


def test_an_output_schema_can_be_the_schema_itself() -> None:
    step = one_step("agent: b, outputs: [all], outputSchema: {type: array}")
    assert (step.output_schema, step.outputs) == (OutputSchema("A", {"type": "array"}), ("all",))


def test_a_property_that_is_no_name_is_left_out_with_a_warning() -> None:
    (warning,) = load(GRAPH.replace("files: {type: array}", "files: {type: array}, loop: {}")).warnings
    assert "the property 'loop' is no name for an output and is left out" in warning.message


def test_a_snapshot_of_every_key_gives_an_equal_pipeline_back() -> None:
    for text in (LOOP, GRAPH):
        found = load(text).pipeline
        assert from_snapshot(to_snapshot(found)) == found


@pytest.mark.parametrize(
    "section",
    ["inputs", "workspace", "defaults", "agents", "concurrency", "budget", "priority", "artifacts", "resources"],
)
def test_a_section_with_nothing_in_it_counts_as_absent(section: str) -> None:
    plain = load("id: a\nsteps: [{id: A, run: ls}]").pipeline
    assert load(f"id: a\n{section}:\nsteps: [{{id: A, run: ls}}]").pipeline == plain


@pytest.mark.parametrize(
    "key",
    [
        *("outputs", "onComplete", "onResult", "loop", "dependsOn", "needs", "when", "foreach", "matrix", "parallel"),
        *("approve", "uses", "with", "outputSchema", "continueOnError", "artifacts", "retries", "timeout", "agent"),
    ],
)
def test_a_key_of_a_step_with_nothing_behind_it_counts_as_absent(key: str) -> None:
    assert one_step(f"run: ls, {key}: null") == one_step("run: ls")


def test_a_key_and_its_other_name_may_stand_together_when_one_is_empty() -> None:
    assert one_step("run: ls, timeout: null, timeoutSeconds: 90").timeout_seconds == 90


def test_defaults_of_other_systems_are_taken() -> None:
    defaults = "defaults: {timeout: 1800, maxRetries: 2, model: gpt, outputMethod: response_format}"
    step = load(f'id: a\nversion: "1.0"\n{defaults}\nsteps: [{{id: A, agent: b}}]').pipeline.first_step
    assert (step.timeout_seconds, step.retries, step.model) == (1800, Retries(max=2), "gpt")


def test_an_agent_whose_folder_is_elsewhere_is_not_checked_without_known_agents() -> None:
    text = "id: a\nagents: [{id: eric, persona: agents/eric/persona.md}]\nsteps: [{id: A, agent: other}]"
    assert load(text).pipeline.agents["eric"].persona == "agents/eric/persona.md"
