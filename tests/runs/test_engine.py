"""Runs from start to end, with the stub runner and the tasks called as functions."""

from __future__ import annotations

import json
from typing import Any

import pytest

from djinn.executions.models import Execution
from djinn.executions.services import give_up
from djinn.runs import engine
from djinn.runs.models import StepRun
from djinn.runs.services import start_run
from tests.make import begin, failed, history, played, prepared, step, succeeded, told, work, write_pipeline

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("home")]

LOOP = (
    step("FIX", played(finished=succeeded(NOTES="{{ NOTES }}x")), outputs=["NOTES"], onComplete="REVIEW"),
    step(
        "REVIEW",
        played(finished=succeeded(VERDICT="{% if NOTES == 'xxx' %}APPROVED{% else %}again {% endif %}")),
        outputs=["VERDICT"],
        onResult={"AGAIN": {"goto": "FIX"}, "APPROVED": {}},
    ),
)


def play_now(step_run: StepRun, **stub: Any) -> None:
    """Change what the stub will play for a step run that was prepared."""
    assert step_run.execution is not None
    order = {**step_run.execution.order, "script": json.dumps({"stub": stub})}
    Execution.objects.filter(pk=step_run.execution.pk).update(order=order)


def test_steps_without_routing_run_in_the_order_of_the_file() -> None:
    run = work(begin(step("A"), step("B"), step("C")))
    assert run.status == "succeeded"
    assert history(run) == [(name, 1, 1, "succeeded", "") for name in "ABC"]


def test_the_log_of_a_run_tells_its_story_in_order() -> None:
    run = work(begin(step("A"), step("B")))
    one = ["step_queued", "step_started", "ready", "finished", "step_finished"]
    assert [kind for kind, _ in told(run)] == ["run_queued", "run_started", *one, *one, "run_finished"]


def test_a_step_that_runs_on_completion_is_named_by_the_one_before() -> None:
    run = work(begin(step("A", onComplete="C"), step("B"), step("C")))
    assert [row[0] for row in history(run)] == ["A", "C"]


def test_a_result_sends_the_run_back_until_it_changes() -> None:
    run = work(begin(*LOOP))
    assert run.status == "succeeded"
    assert [(row[0], row[1]) for row in history(run)] == [
        ("FIX", 1), ("REVIEW", 1), ("FIX", 2), ("REVIEW", 2), ("FIX", 3), ("REVIEW", 3),
    ]  # fmt: skip


def test_a_step_that_is_visited_too_often_fails_the_run_as_visits() -> None:
    fix, review = LOOP
    run = work(begin({**fix, "maxVisits": 2}, review))
    assert (run.status, run.reason) == ("failed", "visits")
    assert "FIX was visited 2 times" in run.message


def test_a_failed_step_is_tried_again_as_often_as_it_may() -> None:
    run = work(begin(step("A", played(finished=failed()), retries={"max": 2})))
    assert (run.status, run.reason) == ("failed", "error")
    assert history(run) == [("A", 1, attempt, "failed", "error") for attempt in (1, 2, 3)]


def test_the_message_of_a_failed_run_names_the_step_and_what_it_said() -> None:
    run = work(begin(step("A", played(finished=failed(message="no such file: x")))))
    assert run.message == "step A failed: no such file: x"


def test_the_message_of_a_run_counts_the_attempts() -> None:
    run = work(begin(step("A", played(finished=failed(message="exit code 3: boom")), retries={"max": 1})))
    assert run.message == "step A failed after 2 attempts: exit code 3: boom"


def test_a_failure_of_another_reason_than_the_step_repeats_for_is_not_repeated() -> None:
    run = work(begin(step("A", played(finished=failed("turns")), retries={"max": 3, "on": ["timeout"]})))
    assert len(history(run)) == 1


def test_a_retry_waits_longer_each_time_and_is_not_rung_before() -> None:
    run = begin(step("A", played(finished=failed()), retries={"max": 3, "backoff": "10s"}))
    work(run)
    queued = [data["delay_seconds"] for _, data in told(run, "step_queued")]
    assert queued == [0, 10, 20, 40]
    rows = run.step_runs.order_by("number").values_list("queued_at", "not_before")
    waits = [(not_before - queued_at).total_seconds() if not_before else 0 for queued_at, not_before in rows]
    assert waits == pytest.approx([0, 10, 20, 40], abs=1)


def test_a_lost_container_is_not_charged_to_the_step() -> None:
    run = begin(step("A"))
    for _ in range(2):
        lost = prepared(run)
        play_now(lost, finished=None, exit_code=1)
        engine.execute_step(lost.pk)
        engine.settle_step(lost.pk)
    work(run)
    assert run.status == "succeeded"
    assert [row[2:] for row in history(run)] == [(1, "failed", "lost"), (2, "failed", "lost"), (3, "succeeded", "")]


def test_a_step_that_loses_its_container_again_and_again_fails_the_run_as_lost() -> None:
    run = work(begin(step("A", played(finished=None))))
    assert (run.status, run.reason) == ("failed", "lost")
    assert len(history(run)) == 5


def test_a_retry_of_an_agent_is_told_the_whole_of_what_went_wrong() -> None:
    run = begin({"id": "A", "agent": "analyst", "input": "Look.", "model": "scripted/demo", "retries": {"max": 1}})
    first = prepared(run)
    play_now(first, finished=failed(message="the file was not there\nsecond line"))
    engine.execute_step(first.pk)
    engine.settle_step(first.pk)
    second = prepared(run)
    assert first.execution is not None
    assert second.execution is not None
    assert "the file was not there" not in first.execution.order["agent"]["prompt"]
    assert "error: the file was not there\nsecond line" in second.execution.order["agent"]["prompt"]
    first.refresh_from_db()
    assert first.message == "the file was not there second line"


def test_inputs_and_outputs_fill_templates_and_outputs_go_before() -> None:
    write_pipeline(
        step("A", played(finished=succeeded(WORD="from A")), outputs=["WORD"]),
        step("B", "{{ WORD }}, {{ inputs.WORD }}, {{ number }}"),
        inputs={"WORD": {"default": "from the person"}, "number": {"type": "integer"}},
    )
    run = work(start_run(pipeline_id="work", inputs={"number": "7"}))
    last = run.step_runs.get(step="B").execution
    assert last is not None
    assert last.order["script"] == "from A, from the person, 7"


def test_an_undefined_name_is_empty_text_and_a_notice() -> None:
    run = work(begin(step("A", "begin{% if MISSING %}{{ MISSING }}{% endif %}end {{ GONE }}.")))
    execution = run.step_runs.get().execution
    assert execution is not None
    assert execution.order["script"] == "beginend ."
    ((_, notice),) = told(run, "notice")
    assert "GONE" in notice["text"]


def test_a_run_keeps_the_pipeline_that_it_started_with() -> None:
    run = begin(step("A"), step("B"))
    write_pipeline(step("OTHER"))
    assert [row[0] for row in history(work(run))] == ["A", "B"]


def test_a_template_that_cannot_be_filled_in_fails_the_step_as_input() -> None:
    write_pipeline(
        step("A", "{% for a in text %}{% for b in text %}{{ text }}{% endfor %}{% endfor %}"), inputs={"text": {}}
    )
    run = work(start_run(pipeline_id="work", inputs={"text": "x" * 2000}))
    assert (run.status, run.reason) == ("failed", "input")


@pytest.mark.parametrize(
    "repository", ["../..", "..", ".", "/etc", "repositories/missing", "a/../../b", "file:///etc", "ext::sh"]
)
def test_a_workspace_outside_of_the_folder_of_pipelines_is_refused(repository: str) -> None:
    run = work(begin(step("A"), workspace={"repository": repository}))
    assert (run.status, run.reason) == ("failed", "input")
    assert "workspace" in run.message


def test_a_link_that_leads_out_of_the_folder_of_pipelines_is_refused(settings: Any, tmp_path: Any) -> None:
    (tmp_path / "secret").mkdir()
    (settings.PIPELINES_DIRECTORY / "link").symlink_to(tmp_path / "secret")
    run = work(begin(step("A"), workspace={"repository": "link"}))
    assert (run.status, run.reason) == ("failed", "input")


def test_a_workspace_named_by_an_input_is_refused_too() -> None:
    write_pipeline(step("A"), workspace={"repository": "{{ where }}"}, inputs={"where": {}})
    run = work(start_run(pipeline_id="work", inputs={"where": "../../etc"}))
    assert run.reason == "input"


def test_a_workspace_from_a_folder_of_the_pipelines_is_a_copy(settings: Any, home: Any) -> None:
    source = settings.PIPELINES_DIRECTORY / "repositories" / "package"
    source.mkdir(parents=True)
    (source / "file.txt").write_text("text\n")
    run = work(begin(step("A"), workspace={"repository": "repositories/package"}))
    assert run.status == "succeeded", run.message
    assert (home.workspaces / run.stream / "tree" / "file.txt").read_text() == "text\n"


def lose_host(step_run: StepRun) -> None:
    """Let the step run's host be gone for good."""
    Execution.objects.filter(pk=step_run.execution_id).update(host="gone", lease_token=1)
    assert give_up(execution=Execution.objects.get(pk=step_run.execution_id), message="its host is gone")
    engine.settle_step(step_run.pk)


def test_a_run_that_lost_its_host_before_anything_was_done_goes_on_at_any_other() -> None:
    run = begin(step("A"))
    lose_host(prepared(run))
    again = prepared(run).execution
    assert again is not None
    assert again.host == ""
    assert work(run).status == "succeeded"


def test_a_step_stays_at_the_host_that_has_what_the_ones_before_it_left(settings: Any) -> None:
    run = begin(step("A"), step("B"))
    first = prepared(run)
    engine.execute_step(first.pk)
    engine.settle_step(first.pk)
    lose_host(prepared(run))
    again = prepared(run).execution
    assert again is not None
    assert again.host == settings.HOST_NAME
