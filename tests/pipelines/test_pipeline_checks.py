"""What must fit together in a file: each mistake has its own words, at its line, step and key."""

from __future__ import annotations

import pytest

from djinn.pipelines.errors import PipelineInvalid
from djinn.pipelines.loader import Loaded, load_text
from djinn.pipelines.schema import Route

AGENTS = {"critic", "writer"}


def load(text: str) -> Loaded:
    return load_text(text, file="p.yaml", known_agents=AGENTS)


def errors(text: str) -> list[str]:
    with pytest.raises(PipelineInvalid) as caught:
        load(text)
    return [str(problem) for problem in caught.value.problems if problem.severity == "error"]


def warnings(text: str) -> list[str]:
    return [str(problem) for problem in load(text).warnings]


def steps(*lines: str, head: str = "id: p") -> str:
    """A file whose first step is on line 3."""
    return "\n".join([head, "steps:", *(f"  - {{{line}}}" for line in lines)])


def agent(keys: str) -> str:
    return steps(f"id: A, agent: writer, {keys}")


def script(keys: str) -> str:
    return steps(f"id: A, run: ls, {keys}")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (steps("id: A, uses: x, approve: true"), "key uses: a step has either 'approve' or 'uses', not both"),
        (script("with: {a: 1}"), "key with: a step with 'run' takes no 'with'"),
        (agent("with: {a: 1}"), "key with: a step with 'agent' takes no 'with'"),
        (script("outputSchema: {type: object}"), "key outputSchema: a step with 'run' takes no 'outputSchema'"),
        (steps("id: A, approve: true, model: x"), "key model: a step with 'approve' takes no 'model'"),
        (steps("id: A, approve: true, foreach: [1]"), "key foreach: a step with 'approve' takes no 'foreach'"),
        (steps("id: A, approve: true, timeout: 3h"), "key timeout: a step with 'approve' takes no 'timeout'"),
        (steps("id: A, uses: b, input: x"), "key input: a step with 'uses' takes no 'input'"),
        (steps("id: A, uses: b, image: x"), "key image: a step with 'uses' takes no 'image'"),
        (steps("id: A, uses: b c"), "key uses: 'b c': an id is a letter"),
        (steps("id: A, uses: b, with: {a-b: 1}"), "key with.a-b: 'a-b': a name is a letter"),
        (steps("id: A, uses: b, with: {a: '{{ 1 + 1 }}'}"), "key with.a: + is not part of the template language"),
        (steps("id: A, approve: false"), "key approve: must be true, who may decide, or a mapping"),
        (steps("id: A, approve: []"), "key approve: must name somebody who may decide"),
        (steps("id: A, approve: {by: a b}"), "key approve.by: 'a b': a person is a role"),
        (steps("id: A, approve: {by: ada, count: 2}"), "key approve.count: 2 must agree, but only one person may"),
        (steps("id: A, approve: {by: [ada, bob], count: 3}"), "3 must agree, but only 2 people may decide"),
        (steps("id: A, approve: {count: 0}"), "key approve.count: must be a whole number from 1 to 20, not '0'"),
        (steps("id: A, approve: {expires: soon}"), "key approve.expires: must be a time from 1 to 31536000 seconds"),
        (steps("id: A, approve: {show: [diff, NOTE]}"), "key approve.show: nothing gives the name 'NOTE'"),
        (steps("id: A, approve: {who: ada}"), "key approve.who: unknown key 'who'"),
        (steps("id: A, approve: true, outputs: [A, B]"), "key outputs: an approval gives its decision and COMMENT"),
        (
            steps("id: A, approve: true, onResult: {yes: {goto: A}}"),
            "key onResult.yes: an approval gives approved or rejected",
        ),
    ],
)
def test_a_key_that_the_kind_of_step_does_not_take_is_refused(text: str, error: str) -> None:
    assert error in "\n".join(errors(text))


@pytest.mark.parametrize(
    ("action", "error"),
    [
        ("{goto: A, retry: true}", "key onResult.x.retry: 'goto' is there too; an action goes one way"),
        ("{retry: true, continueLoop: true}", "key onResult.x.continueLoop: 'retry' is there too"),
        ("{retry: 3}", "key onResult.x.retry: must be true or false, not '3'"),
        ("{retry: true, maxRetries: 21}", "key onResult.x.maxRetries: must be a whole number from 0 to 20"),
        ("{goto: }", "key onResult.x: needs one of 'goto', 'retry', 'continueLoop', 'break' and 'notify'"),
        ("{break: true, retry: true}", "key onResult.x.break: 'retry' is there too; an action goes one way"),
        ("{break: true}", "key onResult.x.break: this step is not among the steps from a loop's"),
        ("{continueLoop: true}", "key onResult.x.continueLoop: this step is not among the steps from a loop's"),
        ("{notify: {agent: nobody, message: m}}", "key onResult.x.notify.agent: there is no agent 'nobody'"),
        ("{notify: {agent: critic}}", "key onResult.x.notify.message: a notice needs 'message'"),
        ("{notify: {message: m}}", "key onResult.x.notify.agent: a notice needs 'agent'"),
        ("{notify: critic}", "key onResult.x.notify: must be a mapping, not 'critic'"),
        ("{notify: {agent: critic, message: '{{ a( }}'}}", "key onResult.x.notify.message: "),
    ],
)
def test_an_action_that_is_no_way_to_go_on_is_refused(action: str, error: str) -> None:
    text = script(f"outputs: [v], onResult: {{x: {action}}}")
    assert error in "\n".join(errors(text))


@pytest.mark.parametrize(
    "action", ["{retry: false, goto: A}", "{continueLoop: null, goto: A}", "{goto: A, notify: null}"]
)
def test_what_an_action_does_not_want_counts_as_absent(action: str) -> None:
    route = load(script(f"outputs: [v], onResult: {{x: {action}}}")).pipeline.first_step.on_result["x"]
    assert route == Route("A")


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (script("loop: {onEachComplete: A}"), "key loop.over: a loop needs the name of an output or input"),
        (script("loop: {over: items}"), "key loop.over: nothing gives the name 'items'"),
        (script("loop: {over: 'a b'}"), "key loop.over: expected token ')', got 'b'"),
        (script("loop: {over: current_item}"), "key loop.over: nothing gives the name 'current_item'"),
        (script("loop: items"), "key loop: must be a mapping, not 'items'"),
        (
            steps("id: A, run: ls, outputs: [xs], loop: {over: xs, onEachComplete: C}"),
            "p.yaml:3: step A: key loop.onEachComplete: there is no step 'C'",
        ),
        (
            steps("id: A, run: ls, outputs: [xs], loop: {over: xs, onAllComplete: C}"),
            "p.yaml:3: step A: key loop.onAllComplete: there is no step 'C'",
        ),
        (
            steps(
                "id: A, run: ls, outputs: [xs], loop: {over: xs, onEachComplete: B}",
                "id: B, run: ls, onComplete: C",
                "id: C, run: ls, onComplete: B",
            ),
            "p.yaml:3: step A: key loop.onEachComplete: the steps for an item (B, C) never come back: one of them",
        ),
        (
            steps(
                "id: A, run: ls, outputs: [xs], loop: {over: xs, onEachComplete: B, onAllComplete: C}",
                "id: B, run: ls, onComplete: C",
                "id: C, run: ls",
            ),
            "the steps for an item (B) never come back",
        ),
        (
            steps(
                "id: A, run: ls, outputs: [xs], loop: {over: xs, onEachComplete: B, onAllComplete: C}",
                "id: B, run: ls, onComplete: A",
                "id: C, run: ls, outputs: [v], onResult: {x: {continueLoop: true}}",
            ),
            "step C: key onResult.x.continueLoop: this step is not among the steps",
        ),
    ],
)
def test_a_loop_that_cannot_go_round_is_refused(text: str, error: str) -> None:
    assert error in "\n".join(errors(text))


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (steps("id: A, run: a, needs: [B]"), "p.yaml:3: step A: key needs: there is no step 'B'"),
        (steps("id: A, run: a, needs: A"), "p.yaml:3: step A: key needs: a step cannot need itself"),
        (
            steps("id: A, run: a, needs: [C]", "id: B, run: a, needs: [A]", "id: C, run: a, needs: [B]"),
            "p.yaml:3: step A: key needs: these steps need each other: A -> C -> B -> A",
        ),
        (script("when: ''"), "key when: an expression is missing"),
        (script("when: '{{ a }}'"), "key when: an expression is written without {{ }}"),
        (script("when: a b"), "key when: expected token ')', got 'b'"),
        (script("when: inputs.a == 'x'"), "key when: nothing gives the name 'inputs.a'"),
        (script("when: x == 'y'"), "key when: nothing gives the name 'x'"),
        (script("when: current_item"), "key when: nothing gives the name 'current_item'"),
        (script("foreach: [1], when: current_item"), "key when: nothing gives the name 'current_item'"),
        (script("foreach: {parallel: 3}"), "key foreach.over: 'foreach' needs an expression that gives a list"),
        (script("foreach: xs"), "key foreach: nothing gives the name 'xs'"),
        (script("foreach: [[1]]"), "key foreach: must be an expression, or a list of texts"),
        (script("foreach: {over: [1], parallel: 2}, parallel: 3"), "key foreach.parallel: says the same as the key"),
        (script("foreach: {over: [1], parallel: 0}"), "key foreach.parallel: must be a whole number from 1 to 100"),
        (script("foreach: [1], matrix: {a: [1]}"), "key matrix: a step has either 'foreach' or 'matrix', not both"),
        (script("parallel: 3"), "key parallel: goes with 'foreach' or 'matrix'"),
        (script("matrix: {}"), "key matrix: must have 1 to 10 lists, not 0"),
        (script("matrix: {a: []}"), "key matrix.a: must be a list with at least one value"),
        (script("matrix: {a: [1, 1]}"), "key matrix.a: holds a value twice"),
        (script("matrix: {a-b: [1]}"), "key matrix.a-b: 'a-b': a name is a letter"),
        (script(f"matrix: {{{', '.join(f'a{n}: [1]' for n in range(11))}}}"), "must have 1 to 10 lists, not 11"),
        (
            script(f"matrix: {{a: {list(range(101))}, b: {list(range(10))}}}"),
            "key matrix: gives 1010 combinations, at most 1000 are allowed",
        ),
        (script("needs: [], join: all"), "key join: unknown key 'join'; 'needs' on a step with 'foreach'"),
        (script("if: a"), "key if: unknown key 'if'; a condition is written as 'when'"),
        (script("continueOnError: maybe"), "key continueOnError: must be true or false, not 'maybe'"),
        (
            steps("id: A, run: a, outputs: [X]", "id: B, run: '{{ X|quote }}', continueOnError: true"),
            "p.yaml:4: step B: key run: step A gives 'X', but this step does not need it; add A to 'needs'",
        ),
        (
            steps("id: A, run: a, outputs: [X]", "id: B, run: b, when: X"),
            "p.yaml:4: step B: key when: step A gives 'X', but this step does not need it; add A to 'needs'",
        ),
        (
            steps("id: A, run: a", "id: B, run: b, when: steps.A.status == 'failed'"),
            "key when: 'A' is no step that this one needs",
        ),
        (
            steps("id: A, run: a", "id: B, run: b, needs: A, when: steps.A.state == 'failed'"),
            "key when: a step has 'status' and 'outputs', no 'state'",
        ),
        (
            steps("id: A, run: a, outputs: [X]", "id: B, run: b, needs: A, when: steps.A.outputs.Y"),
            "key when: nothing gives the name 'steps.A.outputs.Y'",
        ),
        (
            steps("id: A, run: a, outputs: [X]", "id: B, needs: [], when: 'true', approve: {show: X}"),
            "key approve.show: step A gives 'X', but this step does not need it",
        ),
    ],
)
def test_a_graph_that_cannot_start_or_name_its_data_is_refused(text: str, error: str) -> None:
    assert error in "\n".join(errors(text))


@pytest.mark.parametrize("routed", ["onComplete: A", "onResult: {x: {goto: A}}", "maxVisits: 3", "dependsOn: [A]"])
def test_one_file_is_one_family(routed: str) -> None:
    text = steps("id: A, run: a", "id: B, run: b, outputs: [v], needs: [A]", f"id: C, run: c, outputs: [w], {routed}")
    key = routed.partition(":")[0]
    where = "one file is one family: 'needs' of step B on line 4 makes it a graph"
    assert errors(text) == [f"p.yaml:5: step C: key {key}: {where}, which has no {key!r}"]


@pytest.mark.parametrize(
    ("schema", "error"),
    [
        ("{type: object, properties: 3}", "key outputSchema.schema: /properties: 3 is not of type 'object'"),
        ("{type: string}", "key outputSchema.schema: the type of the whole answer must be object or array"),
        ("{name: x, schema: {type: object, $ref: 'http://a/b'}}", "leads out of the schema"),
        ("{name: x, schema: {type: object}, extra: 1}", "key outputSchema.extra: unknown key 'extra'"),
        ("{name: 'a b', schema: {type: object}}", "key outputSchema.name: 'a b': an id is a letter"),
        ("{type: array}", "key outputs: the answer is a list: declare the one output that takes it"),
        ("text", "key outputSchema: must be a mapping, not 'text'"),
    ],
)
def test_a_schema_that_no_answer_can_follow_is_refused(schema: str, error: str) -> None:
    assert error in "\n".join(errors(agent(f"outputSchema: {schema}")))


def test_only_one_output_can_take_a_whole_answer() -> None:
    text = agent("outputs: [a, b], outputSchema: {type: object, properties: {c: {}}}")
    assert "key outputs: the outputs a, b are no properties of the schema" in errors(text)[0]


@pytest.mark.parametrize(
    ("head", "error"),
    [
        ("priority: 101", "key priority: must be a whole number from -100 to 100, not '101'"),
        ("concurrency: {limit: 2}", "key concurrency.group: 'concurrency' needs the name of a group"),
        ("concurrency: {group: a, limit: 0}", "key concurrency.limit: must be a whole number from 1 to 1000"),
        (
            "concurrency: {group: a, policy: wait}",
            "key concurrency.policy: must be one of queue, reject, cancel-running",
        ),
        ("concurrency: {group: '{{ a() }}'}", "key concurrency.group: a call is not part of the template language"),
        ("budget: {}", "key budget: needs one of 'usd', 'tokens' and 'minutes'"),
        ("budget: {usd: -1}", "key budget.usd: must be a number from 0 to 1e+06, not '-1'"),
        ("budget: {euro: 1}", "key budget.euro: unknown key 'euro'"),
        ("artifacts: [/etc/passwd]", "'/etc/passwd': a pattern of files stays in the workspace"),
        ("artifacts: [a/../../b]", "a pattern of files stays in the workspace"),
        ("artifacts: ['']", "a pattern of files has 1 to 256 characters"),
        ("artifacts: [a//b]", "a pattern of files has no empty parts"),
        ("artifacts: [a/b**]", "a pattern of files has ** for whole directories only"),
        ("artifacts: ['a\\b']", "a pattern of files has no backslash"),
        ("resources: {disk: 0}", "key resources.disk: must be a size from 1m"),
        ("inputs: {a: {type: list, default: x}}", "key inputs.a.default: must be a list; the text 'x' is no JSON"),
        ("inputs: {a: {type: list, default: {b: 1}}}", "key inputs.a.default: must be a list, not a mapping"),
        ("inputs: {a: {type: json, default: '{'}}", "key inputs.a.default: must be JSON; the text '{' is no JSON"),
    ],
)
def test_a_key_of_the_pipeline_that_cannot_be_kept_is_refused(head: str, error: str) -> None:
    assert error in "\n".join(errors(steps("id: A, run: ls", head=f"id: p\n{head}")))


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        (
            script("outputs: [v], else: {}, onResult: {x: {goto: A, maxRetries: 3}}"),
            "has no effect without 'retry: true'",
        ),
        (script("outputs: [v], else: {}, onResult: {x: }"), "key onResult.x: there is no action behind it"),
        (
            script("outputs: [xs], loop: {over: xs}, onResult: {x: {goto: A}}"),
            "key onResult.x.goto: has no effect on a step with 'loop'",
        ),
        (
            script("outputs: [xs], onComplete: A, loop: {over: xs, onAllComplete: A}"),
            "key onComplete: has no effect beside 'loop.onAllComplete'",
        ),
        (
            steps("id: A, run: a, outputs: [xs], loop: {over: xs, onEachComplete: B}", "id: B, run: b"),
            "step B: key id: the steps for an item of A end here without 'continueLoop'; the next item follows",
        ),
        (
            steps("id: A, run: a, onComplete: B, maxVisits: 101", "id: B, run: b, onComplete: A"),
            "step A: key maxVisits: the run may go round here 101 times before it fails",
        ),
        (steps("id: A, run: a, when: 1 > 2", "id: B, run: b, needs: A"), "key when: is never true"),
        (steps("id: A, run: a, foreach: [1]", "id: B, run: b"), "no step of this graph has 'needs': all steps start"),
        (
            steps("id: A, run: a, foreach: [1]", head="id: p\ndefaults: {maxVisits: 3}"),
            "p.yaml:2: key defaults.maxVisits: has no effect in a graph",
        ),
        (steps("id: A, agent: writer, input: '{{ inputs.a }}'"), "nothing gives the name 'inputs.a'; it will be empty"),
        (steps("id: A, agent: writer, description: '{{ a }}'"), "key description: nothing gives the name 'a'"),
        (steps("id: A, agent: writer, input: '{{ current_item }}'"), "nothing gives the name 'current_item'"),
        (script("outputs: [steps]"), "key outputs: the name 'steps' is one that Djinn gives itself; it hides this"),
        (
            steps("id: A, run: ls", head="id: p\ninputs: {current_item: text}"),
            "p.yaml:2: key inputs.current_item: the name 'current_item' is one that Djinn gives itself",
        ),
        (
            steps("id: A, run: ls, needs: []", "id: B, agent: writer, input: '{{ X }}', outputs: [X], needs: A"),
            "p.yaml:4: step B: key input: nothing gives the name 'X'; it will be empty",
        ),
        (script("type: shell"), "key type: this key has no effect"),
        (steps("id: A, run: ls", head="author: me\nid: p"), "key author: this key has no effect"),
        (
            steps("id: A, run: ls", head="id: p\nagents: [{id: x, role: dev}]"),
            "key agents.role: this key has no effect",
        ),
        (
            steps("id: A, run: ls", head="id: p\nconcurrency: 'g-{{ b }}'"),
            "key concurrency: nothing gives the name 'b'",
        ),
    ],
)
def test_what_runs_otherwise_than_it_looks_is_a_warning(text: str, warning: str) -> None:
    (found,) = warnings(text)
    assert warning in found


def test_names_of_a_used_pipeline_without_declared_outputs_are_not_doubted() -> None:
    text = steps("id: A, uses: other", "id: B, agent: writer, input: '{{ REPORT }}'")
    assert warnings(text) == []


def test_an_item_and_its_index_are_there_for_every_step_of_a_loop() -> None:
    text = steps(
        "id: A, run: a, outputs: [xs], loop: {over: xs, onEachComplete: B}",
        "id: B, agent: writer, input: '{{ current_item }} {{ current_index }} {{ completed_items }}', onComplete: A",
    )
    assert warnings(text) == []


def test_the_steps_of_a_long_loop_are_no_circle() -> None:
    text = steps(
        "id: A, run: a, outputs: [xs], maxVisits: 500, loop: {over: xs, onEachComplete: B}",
        "id: B, run: b, maxVisits: 500, onComplete: A",
    )
    assert warnings(text) == []


def test_one_step_may_follow_each_item_and_the_whole_loop() -> None:
    text = steps(
        "id: A, run: a, outputs: [xs], loop: {over: xs, onEachComplete: B, onAllComplete: B}",
        "id: B, run: b, outputs: [v], onResult: {more: {continueLoop: true}}, else: {}",
    )
    assert warnings(text) == []


def test_a_loop_within_a_loop_goes_over_a_part_of_the_item() -> None:
    text = steps(
        "id: A, run: a, outputs: [xs], loop: {over: xs, onEachComplete: B}",
        "id: B, run: b, loop: {over: current_item.parts}, onComplete: A",
    )
    assert warnings(text) == []


def test_everything_wrong_with_a_graph_is_told_at_once() -> None:
    text = steps(
        "id: A, run: a, needs: [A, Q], when: zz",
        "id: B, agent: nobody, matrix: {}, foreach: 3, onComplete: A",
        "id: B, approve: {by: []}, tpye: x",
    )
    assert [error.split(": ")[0] for error in errors(text)] == [
        *["p.yaml:3"] * 3,
        *["p.yaml:4"] * 4,
        *["p.yaml:5"] * 2,
    ]
