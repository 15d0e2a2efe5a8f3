"""The loader: what it accepts, and that every bad file gets a clear error at the right place."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path

import pytest

from djinn.pipelines.document import MAX_BYTES, plain_value
from djinn.pipelines.errors import PipelineInvalid, Problem
from djinn.pipelines.loader import Loaded, load_file, load_folder, load_text
from djinn.pipelines.schema import AgentReference, Resources, Retries, Route, from_snapshot, to_snapshot

FULL = """\
id: review
name: Review loop
version: 1.10
description: Writes, then reviews.
inputs:
  topic: text
  rounds: {type: integer, default: 2, choices: [1, 2, 3], description: How many}
  careful: {type: boolean, required: false}
workspace: {repository: "https://example.org/{{ topic }}.git", ref: main}
image: python:3.11-slim
defaults:
  model: small
  timeout: 30m
  retries: {max: 2, backoff: 1.5, on: [timeout, error]}
  maxTurns: 20
agents:
  - {id: poet, name: Poet, persona: Rhymes., model: large, tools: [search]}
steps:
  - id: WRITE
    agent: poet
    input: |
      Write about {{ topic }}.
      {% if feedback %}Mind this: {{ feedback }}{% endif %}
    outputs: [draft]
    onComplete: REVIEW
  - id: REVIEW
    agent: critic
    input: "{{ draft }}"
    outputs: [verdict, feedback]
    temperature: 0
    maxOutputTokens: 4000
    maxVisits: 3
    timeoutSeconds: 90
    maxRetries: 0
    onResult:
      NO: {goto: WRITE}
      YES: {goto: SHOW}
  - id: SHOW
    run: echo {{ verdict | quote }}
    network: bridge
    resources: {cpus: 2, memory: 2g, pids: 64}
"""


def load(text: str | bytes) -> Loaded:
    agents = {"critic", "writer"}
    return load_text(text, file="pipelines/demo.yaml", known_agents=agents)


def problems(text: str | bytes) -> list[Problem]:
    with pytest.raises(PipelineInvalid) as caught:
        load(text)
    return list(caught.value.problems)


def errors(text: str | bytes) -> list[str]:
    return [str(problem) for problem in problems(text) if problem.severity == "error"]


def step(extra: str, rest: str = "") -> str:
    return f"id: demo\nsteps:\n  - id: FIX\n    agent: writer\n    {extra}\n{rest}"


def test_a_full_file_loads_without_a_warning() -> None:
    assert load(FULL).warnings == ()


def test_a_number_where_text_is_due_is_taken_as_it_is_written() -> None:
    assert load(FULL).pipeline.version == "1.10"


def test_a_step_takes_what_it_does_not_say_from_the_defaults() -> None:
    write = load(FULL).pipeline.step("WRITE")
    assert (write.model, write.timeout_seconds, write.max_turns, write.image) == ("small", 1800, 20, "python:3.11-slim")
    assert write.retries == Retries(max=2, backoff_seconds=1.5, on=("timeout", "error"))


def test_a_step_may_say_otherwise_than_the_defaults() -> None:
    review = load(FULL).pipeline.step("REVIEW")
    assert (review.timeout_seconds, review.max_visits, review.temperature, review.max_output_tokens) == (90, 3, 0, 4000)
    assert review.retries == Retries(max=0, backoff_seconds=1.5, on=("timeout", "error"))


def test_results_named_yes_and_no_stay_text() -> None:
    assert load(FULL).pipeline.step("REVIEW").on_result == {"NO": Route("WRITE"), "YES": Route("SHOW")}


def test_a_run_step_has_a_script_and_its_own_resources() -> None:
    show = load(FULL).pipeline.step("SHOW")
    assert (show.kind, show.run, show.network) == ("run", "echo {{ verdict | quote }}", "bridge")
    assert show.resources == Resources(cpus=2.0, memory_mb=2048, pids=64)


def test_an_agent_declared_in_the_file_is_known() -> None:
    assert load(FULL).pipeline.agents == {"poet": AgentReference("poet", "Poet", "Rhymes.", "large", ("search",))}


def test_depends_on_gives_the_order_of_a_pipeline_without_routes() -> None:
    text = (
        "id: a\nsteps:\n- {id: C, run: ls, dependsOn: [A, B]}\n- {id: A, run: ls}\n- {id: B, run: ls, dependsOn: A}\n"
    )
    assert [one.id for one in load(text).pipeline.steps] == ["A", "B", "C"]


def test_depends_on_does_not_change_the_first_step_of_a_pipeline_with_routes() -> None:
    text = "id: a\nsteps:\n- {id: C, run: ls, dependsOn: [A], onComplete: A}\n- {id: A, run: ls}\n"
    assert load(text).pipeline.first_step.id == "C"


def test_a_byte_order_mark_and_windows_line_ends_are_taken() -> None:
    text = "\ufeffid: a\r\nsteps:\r\n  - id: A\r\n    run: |\r\n      ls\r\n"
    assert load(text).pipeline == load(text.encode()).pipeline
    assert load(text).pipeline.first_step.run == "ls\n"


def test_control_characters_of_a_file_do_not_reach_a_terminal() -> None:
    assert all(error.isprintable() for error in errors('"\\e[31mid": a\nsteps: [{id: "A\\e", run: ls, "\\n": 1}]'))


def test_a_directory_that_became_a_file_is_read_again(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").mkdir()
    assert list(load_folder(tmp_path).problems) == ["one.yaml"]
    (tmp_path / "one.yaml").rmdir()
    (tmp_path / "one.yaml").write_text("steps: [{id: A, run: ls}]")
    assert list(load_folder(tmp_path).pipelines) == ["one"]


def test_a_file_replaced_by_one_of_the_same_size_and_time_is_read_again(tmp_path: Path) -> None:
    path, other = tmp_path / "one.yaml", tmp_path / "one.new"
    path.write_text("steps: [{id: A, run: ls}]")
    before = load_folder(tmp_path).pipelines["one"]
    other.write_text("steps: [{id: A, run: ps}]")
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    other.rename(path)
    assert load_folder(tmp_path).pipelines["one"].digest != before.digest


def test_a_file_without_an_id_is_named_after_itself() -> None:
    assert load("steps: [{id: A, run: ls}]").pipeline.id == "demo"


def test_the_digest_changes_with_the_meaning_and_not_with_the_form() -> None:
    plain, other = "id: a\nsteps: [{id: A, run: ls}]", "id: a\n# a comment\nsteps:\n  - run: 'ls'\n    id: A\n"
    assert load(plain).digest == load(other).digest
    assert load(plain).digest != load(plain.replace("ls", "ps")).digest


def test_a_snapshot_gives_an_equal_pipeline_back() -> None:
    pipeline = load(FULL).pipeline
    assert from_snapshot(to_snapshot(pipeline)) == pipeline


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "pipelines/demo.yaml:1: the file is empty"),
        ("# nothing\n", "pipelines/demo.yaml:1: the file is empty"),
        ("---\n", "pipelines/demo.yaml:1: the file is empty"),
        ("- a\n", "pipelines/demo.yaml:1: the file must be a mapping (`id: ...`, `steps: ...`), not a list"),
        ("hello", "pipelines/demo.yaml:1: the file must be a mapping (`id: ...`, `steps: ...`), not a single value"),
        ("a: 1\n---\nb: 2\n", "pipelines/demo.yaml:2: the file holds several documents; one file is one pipeline"),
        (b"a: \xff\n", "pipelines/demo.yaml:1: the file is not UTF-8 (byte 3)"),
        ("a: 1\nb: \x00", "pipelines/demo.yaml:2: the file holds a NUL character"),
        ('a: "\\0"', "pipelines/demo.yaml:1: a text holds a NUL character"),
        ("a: \ud800", "pipelines/demo.yaml:1: the file holds half of a surrogate pair"),
        ("a:\n\t- b\n", "pipelines/demo.yaml:2: a tab indents this line; YAML is indented with spaces"),
        ("a: [1\n", "not YAML: while parsing a flow sequence"),
        ("a: \x07", "not YAML: "),
        ("a: &x 1\n", "pipelines/demo.yaml:1: anchors are not allowed (&x); write the value again"),
        ("a: *x\n", "pipelines/demo.yaml:1: aliases are not allowed (*x); write the value again"),
        ("a: !!python/object:os.system x\n", "tags are not allowed ('tag:yaml.org,2002:python/object:os.system')"),
        (
            "id: a\nid: b\nsteps: [{id: A, run: ls}]",
            "pipelines/demo.yaml:2: the key 'id' is there twice; first on line 1",
        ),
        (step("input: {{ topic }}"), "pipelines/demo.yaml:5: a key must be plain text; put a template such as"),
        ("a: " + "[" * 51 + "]" * 51, "pipelines/demo.yaml:1: values are nested deeper than 50 levels"),
        ("a: [" + "1," * 20_000 + "]", "pipelines/demo.yaml:1: the file holds more than 20000 values"),
        ("a" * (MAX_BYTES + 1), "pipelines/demo.yaml:1: the file is larger than 256 KiB"),
        ("é" * (MAX_BYTES // 2 + 1), "pipelines/demo.yaml:1: the file is larger than 256 KiB"),
    ],
)
def test_text_that_is_no_document_is_refused(text: str | bytes, error: str) -> None:
    (found,) = errors(text)[:1]
    assert error in found


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("id: a", "key steps: a pipeline needs a list of steps with at least one step in it"),
        ("id: a\nsteps: []", "2: key steps: a pipeline needs a list of steps with at least one step in it"),
        ("id: a\nsteps: {}", "2: key steps: must be a list, not a mapping"),
        ("id: a\nsteps: [3]", "2: key steps: a step must be a mapping, not '3'"),
        ("id: 1a\nsteps: [{id: A, run: ls}]", "1: key id: '1a': an id is a letter, then up to 63 letters"),
        ("nmae: a\nsteps: [{id: A, run: ls}]", "1: key nmae: unknown key 'nmae'; did you mean 'name'?"),
        ("steps: [{run: ls}]", "1: key id: a step needs an id"),
        ("steps: [{id: 'A b', run: ls}]", "step A b: key id: 'A b': an id is a letter"),
        ("steps: [{id: " + "a" * 65 + ", run: ls}]", "an id is a letter"),
        ("steps: [{id: A, run: ls}, {id: A, run: ls}]", "step A: key id: there is already a step 'A' on line 1"),
        ("steps: [{id: A}]", "step A: key agent: a step needs one of 'agent', 'run', 'approve' and 'uses'"),
        ("steps: [{id: A, run: ls, agent: critic}]", "step A: key run: a step has either 'agent' or 'run', not both"),
        ("steps: [{id: A, run: ls, input: x}]", "step A: key input: a step with 'run' takes no 'input'"),
        ("steps: [{id: A, agent: critc}]", "step A: key agent: there is no agent 'critc'; did you mean 'critic'?"),
        (step("onComplete: FXI"), "5: step FIX: key onComplete: there is no step 'FXI'; did you mean 'FIX'?"),
        (
            step("outputs: [v]", "    onResult:\n      OK: {goto: FIXX}\n"),
            "7: step FIX: key onResult.OK.goto: there is no step 'FIXX'; did you mean 'FIX'?",
        ),
        (step("dependsOn: [NO]"), "step FIX: key dependsOn: there is no step 'NO'"),
        (step("dependsOn: [FIX]"), "step FIX: key dependsOn: these steps wait for each other: FIX"),
        (step("onResult: {OK: {goto: FIX}}"), "key onResult: a step without outputs has no results to route by"),
        (step("onResult: {OK: FIX}"), "key onResult.OK: must be a mapping, not 'FIX'"),
        (step("onResult: {OK: {goto: }}"), "key onResult.OK: needs one of 'goto', 'retry', 'continueLoop', "),
        (step("onResult: {OK: {gto: FIX}}"), "key onResult.OK.gto: unknown key 'gto'; did you mean 'goto'?"),
        (step("onResult: {'': {goto: FIX}}"), "a result is empty"),
        (step("onResult: {ok: {goto: FIX}, 'OK ': {goto: FIX}}"), "means the same as 'ok'"),
        (step("outputs: [a-b]"), "key outputs: 'a-b': a name is a letter or _"),
        (step("outputs: [not]"), "key outputs: 'not' is a word of the template language"),
        (step("outputs: [__class__]"), "'__class__' is a word of the template language"),
        (step("outputs: [a, a]"), "key outputs: 'a' is there twice"),
        (step("timeout: 30x"), "key timeout: must be a time from 1 to 604800 seconds, such as 300 or 30m, not '30x'"),
        (step("timeout: 0"), "key timeout: must be a time"),
        (step("timeout: 8d"), "key timeout: must be a time"),
        (step("timeout: 1:30"), "key timeout: must be a time"),
        (step("timeout: 30\n    timeoutSeconds: 30"), "6: step FIX: key timeoutSeconds: says the same as the key"),
        (step("retries: -1"), "key retries: must be a whole number from 0 to 20"),
        (step("retries: {max: true}"), "key retries.max: must be a whole number from 0 to 20, not 'true'"),
        (step("retries: {backoff: .inf}"), "key retries.backoff: must be a time"),
        (step("retries: {on: [cancelled]}"), "'cancelled' is not a reason that can be tried again"),
        (step("maxVisits: 0"), "key maxVisits: must be a whole number from 1"),
        (step("maxTurns: many"), "key maxTurns: must be a whole number"),
        (step("temperature: .nan"), "key temperature: must be a number from 0 to 2, not '.nan'"),
        (step("network: host"), "key network: must be one of none, bridge, not 'host'"),
        (step("resources: {memory: 1t}"), "key resources.memory: must be a size"),
        (step("resources: {cpus: 0}"), "key resources.cpus: must be a number from 0.05 to 256"),
        (step("input: [a]"), "key input: must be text, not a list"),
        (step("tiemout: 3"), "5: step FIX: key tiemout: unknown key 'tiemout'; did you mean 'timeout'?"),
        (step("<<: {timeout: 3}"), "unknown key '<<'"),
        (step("input: '{{ a.__class__ }}'"), "5: step FIX: key input: the name '__class__' is not allowed"),
        (step("input: |\n      fine\n      {{ a(1) }}"), "7: step FIX: key input: a call is not part"),
        (step("input: '{% for %}'"), "key input: "),
        (step("", "workspace: {repository: '{{ 1 + 1 }}'}"), "key workspace.repository: + is not part"),
        (step("", "workspace: {ref: main}"), "key workspace.ref: a ref needs a repository"),
        (step("", "inputs: {a-b: text}"), "key inputs.a-b: 'a-b': a name is a letter"),
        (step("", "inputs: {a: txt}"), "key inputs.a: must be one of string, text, integer, number, boolean"),
        (step("", "inputs: {a: {type: integer, default: x}}"), "key inputs.a.default: must be a whole number, not 'x'"),
        (step("", "inputs: {a: {default: x, choices: [y]}}"), "key inputs.a.default: is not one of the choices"),
        (step("", "inputs: {a: {default: x, required: true}}"), "an input with a default is not required"),
        (step("", "agents: [{name: x}]"), "key agents.id: an agent needs an id"),
        (step("", "agents: [{id: x}, {id: x}]"), "key agents.id: there is already an agent 'x'"),
    ],
)  # fmt: skip
def test_a_pipeline_that_cannot_run_is_refused(text: str, error: str) -> None:
    assert error in "\n".join(errors(text))


def test_all_errors_are_reported_in_the_order_of_lines() -> None:
    first = "  - id: A\n    agent: nobody\n    tiemout: 3\n    onComplete: Q\n"
    text = f"nmae: x\nsteps:\n{first}  - id: A\n  - {{id: B, run: '{{{{'}}\n"
    assert [problem.line for problem in problems(text)] == [1, 4, 5, 6, 7, 7, 8]


def test_a_two_megabyte_file_is_refused_and_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "large.yaml"
    path.write_bytes(b"a: b\n" * 400_000)
    tracemalloc.start()
    with pytest.raises(PipelineInvalid, match="larger than 256 KiB"):
        load_file(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_500_000


def test_a_bomb_of_aliases_is_refused_at_its_first_anchor() -> None:
    bomb = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{n}: &{n} [*{p},*{p},*{p},*{p}]\n" for p, n in zip("abcdefgh", "bcdefghi", strict=True)
    )
    assert errors(bomb) == ["pipelines/demo.yaml:1: anchors are not allowed (&a); write the value again"]


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? "])
def test_deep_nesting_is_refused_before_it_is_built(opening: str) -> None:
    count = MAX_BYTES // len(opening)
    assert "nested deeper than 50 levels" in errors(opening * count)[-1]


def test_a_name_that_nothing_gives_is_a_warning_with_its_line() -> None:
    loaded = load(
        "id: a\ninputs: {topic: text}\nsteps:\n  - id: A\n    run: |\n      echo\n      echo {{ topik|quote }}\n"
    )
    message = "nothing gives the name 'topik'; it will be empty; did you mean 'topic'?"
    assert [str(problem) for problem in loaded.warnings] == [f"pipelines/demo.yaml:7: step A: key run: {message}"]


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("steps: [{id: A, run: a, onComplete: B}, {id: B, run: b}, {id: C, run: c}]", "step C: no route leads to it"),
        ("inputs: {a: text}\nsteps: [{id: A, run: '{{ a }} {{ a|quote }} {{ 1 }}'}]", "key run: a value goes into"),
        ("steps: [{id: A, run: a, outputMethod: tool}]", "key outputMethod: this key has no effect"),
        ("inputs: {a: {default: x}}\nsteps: [{id: A, run: a, outputs: [a]}]", "the output 'a' hides the input"),
        ("steps: [{id: A, run: a, onComplete: B}, {id: B, run: b, dependsOn: A}]", "key dependsOn: has no effect"),
    ],
)  # fmt: skip
def test_what_is_odd_but_runs_is_a_warning(text: str, warning: str) -> None:
    (found,) = load(text).warnings
    assert warning in str(found)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        *[(word, word) for word in ("yes", "NO", "On", "off", "y", "2020-01-01", "1:30", "0x1F", "1_000", ".inf", "=")],
        *[("true", True), ("FALSE", False), ("null", None), ("~", None), ("12", 12), ("-3", -3), ("1.5", 1.5)],
        *[("1e3", 1000.0), ("9" * 400, "9" * 400), ("1e999", "1e999")],
    ],
)
def test_a_plain_scalar_means_what_yaml_1_2_says(text: str, value: object) -> None:
    assert plain_value(text) == value


def test_a_missing_file_is_a_problem_and_not_a_crash(tmp_path: Path) -> None:
    with pytest.raises(PipelineInvalid, match="there is no such file"):
        load_file(tmp_path / "none.yaml")


def test_a_pipe_in_the_folder_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    assert list(load_folder(tmp_path).problems) == ["pipe.yaml"]


def test_a_bad_file_does_not_hide_the_good_ones(tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text("steps: [{id: A, run: ls}]")
    (tmp_path / "other.yml").write_text("steps: [{id: A, run: ls}]")
    (tmp_path / "bad.yaml").write_text("steps: 3")
    (tmp_path / "notes.txt").write_text("no pipeline")
    catalogue = load_folder(tmp_path)
    assert (list(catalogue.pipelines), list(catalogue.problems)) == (["good", "other"], ["bad.yaml"])


def test_a_changed_file_is_read_again_and_an_unchanged_one_is_not(tmp_path: Path) -> None:
    path, other = tmp_path / "one.yaml", tmp_path / "two.yaml"
    path.write_text("steps: [{id: A, run: ls}]")
    other.write_text("steps: [{id: A, run: ls}]")
    before = load_folder(tmp_path).pipelines
    path.write_text("steps: [{id: A, run: ls -l}]")
    after = load_folder(tmp_path).pipelines
    assert after["one"].digest != before["one"].digest
    assert after["two"] is before["two"]


def test_a_removed_file_is_gone_from_the_catalogue(tmp_path: Path) -> None:
    path = tmp_path / "one.yaml"
    path.write_text("steps: [{id: A, run: ls}]")
    assert list(load_folder(tmp_path).pipelines) == ["one"]
    path.unlink()
    assert list(load_folder(tmp_path).pipelines) == []


def test_other_known_agents_check_the_same_file_again(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("steps: [{id: A, agent: critic}]")
    assert list(load_folder(tmp_path, known_agents={"critic"}).pipelines) == ["one"]
    assert list(load_folder(tmp_path, known_agents={"writer"}).problems) == ["one.yaml"]


def test_the_second_file_with_an_id_is_a_problem(tmp_path: Path) -> None:
    for name in ("a.yaml", "b.yaml"):
        (tmp_path / name).write_text("id: same\nsteps: [{id: A, run: ls}]")
    catalogue = load_folder(tmp_path)
    assert list(catalogue.pipelines) == ["same"]
    assert "already has the id 'same'" in str(catalogue.problems["b.yaml"][0])


def test_a_folder_that_is_not_there_is_a_problem(tmp_path: Path) -> None:
    assert "the folder cannot be read" in str(load_folder(tmp_path / "none").problems["none"][0])
