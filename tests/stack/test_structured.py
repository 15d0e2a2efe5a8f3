"""Steps with an `outputSchema` from the file to the outputs: real containers, the real gateway, a scripted model."""

from __future__ import annotations

from typing import Any

import pytest

from tests.stack.live import Live

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("stack"), pytest.mark.timeout(300)]

PIPELINE = """\
name: Plan
defaults: {retries: {max: 0}}
steps:
  - id: PLAN
    agent: engineer
    model: scripted/shape
    input: Plan it.
    outputs: [items, PLAN]
    outputSchema:
      name: plan
      schema:
        type: object
        required: [why, items]
        properties:
          why: {type: string}
          items: {type: array, items: {type: string, pattern: "^[a-z]+$"}}
    onComplete: SHOW
  - id: SHOW
    run: echo "{{ items[1] | quote }} because {{ PLAN.why | quote }}"
"""
SCRIPT = """\
steps:
  PLAN:
    - - say: I would rather talk about it.
      - json: {why: so, items: [one, 2]}
      - json: {why: so, items: [one, two]}
"""
HOPELESS = """\
steps:
  PLAN:
    - - {json: {items: []}}
      - {json: {items: []}}
      - {json: {items: []}}
"""


def run(live: Live, script: str) -> int:
    """A run of the pipeline with a model that says this, after its end."""
    live.add_pipeline("shape", PIPELINE)
    (live.pipelines / "scripts" / "shape.yaml").write_text(script)
    number = live.start("shape")
    live.await_end(number)
    return number


def texts(live: Live, number: int, kind: str) -> list[Any]:
    """What the log says in events of that type."""
    return [event["data"].get("text") for event in live.events(number, kind)]


def test_a_repaired_answer_becomes_the_steps_outputs(live: Live) -> None:
    number = run(live, SCRIPT)
    plan, show = live.steps(number)
    assert (plan["status"], plan["reason"], show["status"]) == ("succeeded", "", "succeeded"), plan
    assert plan["outputs"] == {"items": ["one", "two"], "PLAN": {"why": "so", "items": ["one", "two"]}}
    assert "two because so\n" in texts(live, number, "output")
    assert len(live.events(number, "message")) == 3


def test_an_answer_that_never_fits_fails_the_step_with_the_problem(live: Live) -> None:
    number = run(live, HOPELESS)
    (plan,) = live.steps(number)
    assert (plan["status"], plan["reason"], plan["outputs"]) == ("failed", "invalid_output", {})
    assert "'why' is a required property" in plan["message"]
    assert live.run_row(number)["status"] == "failed"
