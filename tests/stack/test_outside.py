"""Bad things of the outside end a step with the reason that tells them apart."""

from __future__ import annotations

import pytest

from tests.stack.live import Live, Row

pytestmark = [pytest.mark.docker, pytest.mark.xdist_group("stack"), pytest.mark.timeout(300)]

ONE_STEP = """\
name: One step
defaults: {{retries: {{max: 0}}}}
steps:
  - id: ONLY
    run: {script}
{options}
"""
HOG = "'python3 -c \"x = bytearray(512 * 1024 * 1024); print(len(x))\"'"


def only_step(live: Live, name: str, *, script: str, options: str = "") -> Row:
    """The step of a pipeline of one step, once its run has ended."""
    live.add_pipeline(name, ONE_STEP.format(script=script, options=options))
    run = live.start(name)
    assert live.await_end(run)["status"] == "failed"
    (step,) = live.steps(run)
    return step


def test_an_image_that_does_not_exist_fails_the_step_as_image(live: Live) -> None:
    step = only_step(live, "no-image", script="'true'", options="    image: djinn-no-such-image:never")
    assert (step["status"], step["reason"]) == ("failed", "image")
    assert "djinn-no-such-image" in step["message"]


def test_an_image_without_python_fails_the_step_as_image(live: Live) -> None:
    step = only_step(live, "no-python", script="'true'", options="    image: debian:bookworm-slim")
    assert (step["status"], step["reason"]) == ("failed", "image")


def test_a_memory_hog_fails_the_step_as_out_of_memory(live: Live) -> None:
    step = only_step(live, "hog", script=HOG, options="    resources: {memory: 64m}")
    assert (step["status"], step["reason"]) == ("failed", "out_of_memory")


def test_a_step_that_takes_too_long_fails_as_timeout(live: Live) -> None:
    step = only_step(live, "slow", script="'sleep 300'", options="    timeout: 2")
    assert (step["status"], step["reason"]) == ("failed", "timeout")


def test_a_command_that_fails_fails_the_step_as_error_with_its_exit_code(live: Live) -> None:
    step = only_step(live, "broken", script="'exit 3'")
    assert (step["status"], step["reason"]) == ("failed", "error")
    assert "3" in step["message"]
