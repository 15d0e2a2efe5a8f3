"""Why a run does not go on, when the reason is in a pipeline that it uses."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.management import call_command

from djinn.runs import engine
from djinn.runs.explanation import explain
from djinn.runs.models import Run
from djinn.runs.services import start_run
from djinn.runs.steering import pause_run
from tests.make import begin, step, work, write_pipeline

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("home")]

ASK: dict[str, Any] = {"id": "ASK", "approve": {"by": ["operator"]}, "input": "Ship?"}
USE: dict[str, Any] = {"id": "USE", "uses": "part", "onComplete": "END"}


def using(*steps: dict[str, Any], **part: Any) -> tuple[Run, Run]:
    """A run whose step uses a pipeline of these steps, and that one's run."""
    write_pipeline(*steps, name="part", **part)
    run = begin(USE, step("END"))
    engine.advance_run(run.pk)
    return run, Run.objects.get(parent__run=run)


def test_a_question_in_a_used_pipeline_is_in_the_answer_and_at_the_end_of_the_chain() -> None:
    run, child = using(ASK)
    work(child)
    end, ask = explain(run)
    assert (ask.run, ask.step, ask.state, ask.blocked_by[0].kind) == (child.pk, "ASK", "waiting", "approval")
    assert (end.run, end.step) == (None, "END")
    assert end.chain[-1] == f"USE, run {child.pk}, ASK: waiting for 1 approval by operator"


def test_a_used_pipeline_that_waits_for_its_group_says_so() -> None:
    concurrency = {"group": "deploy", "limit": 1}
    write_pipeline(ASK, name="part", concurrency=concurrency)
    holder = work(start_run(pipeline_id="part", inputs={}))
    run, child = using(ASK, concurrency=concurrency)
    engine.advance_run(child.pk)
    end, queued = explain(run)
    assert (queued.run, queued.step, queued.blocked_by[0].run) == (child.pk, "", holder.pk)
    assert end.chain[-1].startswith(f"USE, run {child.pk}: the concurrency group 'deploy' is full")


def test_a_used_pipeline_that_is_paused_says_so() -> None:
    run, child = using(step("A"))
    engine.advance_run(child.pk)
    pause_run(run=child)
    end = explain(run)[0]
    assert end.chain[-1] == f"USE, run {child.pk}, A: the run is paused"


def test_what_a_used_pipeline_two_levels_down_waits_for_names_its_own_run() -> None:
    write_pipeline(ASK, name="inner")
    run, child = using({"id": "DEEP", "uses": "inner"})
    engine.advance_run(child.pk)
    inner = Run.objects.get(parent__run=child)
    work(inner)
    assert [(one.run, one.step) for one in explain(run)] == [(None, "END"), (inner.pk, "ASK")]
    assert explain(run)[0].chain[-1].startswith(f"USE, run {inner.pk}, ASK: ")


def test_the_command_names_the_run_of_a_used_pipeline(capsys: pytest.CaptureFixture[str]) -> None:
    run, child = using(ASK)
    work(child)
    call_command("runs", "explain", str(run.pk))
    assert f"run {child.pk}, ASK (waiting): waiting for 1 approval by operator" in capsys.readouterr().out
