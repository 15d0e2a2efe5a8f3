"""Starting runs: once for a key, with inputs that fit; and what the database refuses about runs that have ended."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from django.db import IntegrityError, connection

from djinn.core.errors import Conflict, NotFound, UserError
from djinn.core.transition import transition
from djinn.runs.models import Run, StepRun
from djinn.runs.services import start_run
from djinn.runs.states import RUN_MOVES, STEP_MOVES, RunStatus, StepStatus
from tests.make import begin, make_user, step, told, work, write_pipeline

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("home")]


def test_the_same_key_of_the_same_person_starts_one_run() -> None:
    write_pipeline(step("A"))
    user = make_user()
    first, second = (start_run(pipeline_id="work", inputs={}, user=user, idempotency_key="k") for _ in range(2))
    assert first.pk == second.pk
    assert Run.objects.count() == 1


def test_the_same_key_of_another_person_starts_another_run() -> None:
    write_pipeline(step("A"))
    for name in ("one", "two"):
        start_run(pipeline_id="work", inputs={}, user=make_user(name), idempotency_key="k")
    assert Run.objects.count() == 2


def test_the_same_key_for_another_pipeline_is_a_conflict() -> None:
    write_pipeline(step("A"))
    write_pipeline(step("A"), name="other")
    user = make_user()
    start_run(pipeline_id="work", inputs={}, user=user, idempotency_key="k")
    with pytest.raises(Conflict, match="another request"):
        start_run(pipeline_id="other", inputs={}, user=user, idempotency_key="k")


@pytest.mark.parametrize("other", [{"inputs": {"word": "b"}}, {"model": "scripted/x"}, {"priority": 1}])
def test_the_same_key_for_another_request_is_a_conflict(other: dict[str, Any]) -> None:
    write_pipeline(step("A"), inputs={"word": {"type": "string", "default": "a"}})
    user, asked = make_user(), {"pipeline_id": "work", "inputs": {"word": "a"}}
    start_run(**asked, user=user, idempotency_key="k")
    with pytest.raises(Conflict, match="another request"):
        start_run(**{**asked, **other}, user=user, idempotency_key="k")
    assert Run.objects.count() == 1


def test_the_same_key_at_the_same_moment_starts_one_run() -> None:
    write_pipeline(step("A"))
    user, barrier, results = make_user(), threading.Barrier(8), []

    def start() -> None:
        try:
            barrier.wait(10)
            results.append(start_run(pipeline_id="work", inputs={}, user=user, idempotency_key="k").pk)
        except Exception as exc:  # the test looks at it
            results.append(exc)
        finally:
            connection.close()

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert results == [Run.objects.get().pk] * 8
    assert [kind for kind, _ in told(Run.objects.get())] == ["run_queued"]


def test_inputs_that_do_not_fit_are_all_told_and_start_nothing() -> None:
    write_pipeline(step("A"), inputs={"count": {"type": "integer"}, "name": {"default": "x"}})
    with pytest.raises(UserError) as caught:
        start_run(pipeline_id="work", inputs={"count": "many", "nmae": "y"})
    assert sorted(caught.value.details) == ["count", "nmae"]
    assert not Run.objects.exists()


def test_inputs_that_are_too_large_are_refused() -> None:
    write_pipeline(step("A"), inputs={"text": {"type": "text"}})
    with pytest.raises(UserError, match="larger than"):
        start_run(pipeline_id="work", inputs={"text": "x" * 1024 * 1024})


def test_an_unknown_pipeline_is_answered_with_the_known_ones() -> None:
    write_pipeline(step("A"))
    with pytest.raises(NotFound, match="Known: work"):
        start_run(pipeline_id="wrok", inputs={})


def test_a_broken_pipeline_is_answered_with_its_problems(settings: Any) -> None:
    (settings.PIPELINES_DIRECTORY / "broken.yaml").write_text("name: x\nsteps:\n  - id: A\n    rnu: y\n")
    with pytest.raises(UserError, match=r"broken\.yaml cannot be run"):
        start_run(pipeline_id="broken", inputs={})


def test_a_model_that_no_provider_serves_is_refused() -> None:
    write_pipeline({"id": "A", "agent": "analyst", "input": "x", "model": "nobody/x"})
    with pytest.raises(UserError, match="nobody"):
        start_run(pipeline_id="work", inputs={})
    assert not Run.objects.exists()


@pytest.mark.parametrize("to", [status for status in RunStatus if status != RunStatus.SUCCEEDED])
def test_a_run_that_has_succeeded_is_not_moved(to: RunStatus) -> None:
    run = work(begin(step("A")))
    assert not transition(run, to, moves=RUN_MOVES)
    run.refresh_from_db()
    assert run.status == "succeeded"


@pytest.mark.parametrize("to", [status for status in StepStatus if status != StepStatus.SUCCEEDED])
def test_a_step_run_that_has_succeeded_is_not_moved(to: StepStatus) -> None:
    step_run = work(begin(step("A"))).step_runs.get()
    assert not transition(step_run, to, moves=STEP_MOVES)


@pytest.mark.parametrize("table", ["runs_run", "runs_steprun"])
@pytest.mark.parametrize(
    "change", ["status = 'failed'", "reason = 'lost'", "ended_at = now()", "status = 'running', ended_at = NULL"]
)
def test_the_database_refuses_changes_of_what_has_ended(table: str, change: str) -> None:
    work(begin(step("A")))
    with pytest.raises(IntegrityError, match="has ended as succeeded"), connection.cursor() as cursor:
        cursor.execute(f"UPDATE {table} SET {change}")


def test_the_database_refuses_the_same_try_of_a_step_twice() -> None:
    run = begin(step("A"))
    StepRun.objects.create(run=run, number=1, step="A", visit=1, attempt=1)
    with pytest.raises(IntegrityError, match="step_run_try_once"):
        StepRun.objects.create(run=run, number=2, step="A", visit=1, attempt=1)
