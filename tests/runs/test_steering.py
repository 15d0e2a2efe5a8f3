"""What people want of a run while it is open: pause, resume, add context, cancel; each an intent with its event."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection, transaction

from djinn.core.errors import Conflict, UserError
from djinn.executions.models import Execution
from djinn.runs import engine
from djinn.runs.advance import advance
from djinn.runs.bulk import MOST_AT_ONCE, cancel_runs, retry_runs
from djinn.runs.models import Intent, Note, Run, StepRun
from djinn.runs.services import cancel_run
from djinn.runs.steering import inject, pause_run, resume_run
from djinn.runs.turn import turn_of
from tests.make import begin, failed, history, make_user, open_steps, played, prepared, step, told, work, write_pipeline

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("home")]

STEERED = ("pause_requested", "run_paused", "resume_requested", "run_resumed", "note_added", "cancel_requested")
AGENT = "engineer"


@pytest.fixture(autouse=True)
def _model(settings: Any) -> None:
    settings.DEFAULT_MODEL = "scripted/actor"


def write(name: str = "WRITE", **keys: Any) -> dict[str, Any]:
    """A step that is the work of an agent."""
    return {"id": name, "agent": AGENT, "input": "write", **keys}


def state() -> Any:
    """Everything that a refusal must leave as it was."""
    rows = [list(model.objects.order_by("pk").values()) for model in (Run, StepRun, Intent, Note)]
    return [*rows, [told(run) for run in Run.objects.order_by("pk")]]


def intents(run: Run) -> list[tuple[str, str | None]]:
    return list(run.intents.values_list("verb", "by__username"))


# --- Pause and resume -------------------------------------------------------------------------------------------------
def test_a_paused_run_starts_nothing_until_it_is_resumed() -> None:
    run, olga = begin(step("A"), step("B")), make_user("olga")
    prepared(run)
    pause_run(run=run, user=olga)
    (number,) = open_steps(run)
    engine.advance_run(run.pk)
    run.refresh_from_db()
    assert (run.status, run.paused_by) == ("paused", olga)
    engine.execute_step(number)
    assert history(run) == [("A", 1, 1, "queued", "")]
    resume_run(run=run, user=olga)
    assert work(run).status == "succeeded"
    assert [kind for kind, _ in told(run, *STEERED)] == list(STEERED[:4])
    assert intents(run) == [("pause", "olga"), ("resume", "olga")]


def test_pausing_and_resuming_again_is_no_error_and_tells_nothing() -> None:
    run = begin(step("A"))
    assert resume_run(run=run).paused_at is None
    assert intents(run) == []
    first, second = (pause_run(run=run).paused_at for _ in range(2))
    assert first == second is not None
    assert intents(run) == [("pause", None)]
    resume_run(run=run)
    resume_run(run=run)
    assert intents(run) == [("pause", None), ("resume", None)]


def test_a_used_pipeline_pauses_with_the_run_around_it() -> None:
    write_pipeline(step("A"), step("B"), name="part")
    run = begin({"id": "USE", "uses": "part"})
    engine.advance_run(run.pk)
    child = Run.objects.exclude(pk=run.pk).get()
    pause_run(run=run)
    assert work(child).status == "queued" or history(child) == []
    resume_run(run=run)
    assert work(child).status == "succeeded"
    assert work(run).status == "succeeded"


def test_a_run_that_has_ended_is_steered_no_more() -> None:
    run = work(begin(step("A")))
    before = state()
    for act in (pause_run, resume_run, cancel_run, lambda run: inject(run=run, step="A", text="x")):
        with pytest.raises(Conflict, match="has ended already"):
            act(run=run)
    assert state() == before


def test_a_run_that_is_being_cancelled_is_not_paused() -> None:
    run = begin(step("A"))
    cancel_run(run=run)
    before = state()
    for act in (pause_run, lambda run: inject(run=run, step="A", text="x")):
        with pytest.raises(Conflict, match="is being cancelled"):
            act(run=run)
    assert state() == before


def test_a_paused_run_can_be_cancelled() -> None:
    run = begin(step("A"))
    pause_run(run=run)
    cancel_run(run=run)
    assert work(run).status == "cancelled"


# --- Context ----------------------------------------------------------------------------------------------------------
def test_text_for_a_step_stands_in_its_prompt() -> None:
    run, olga = begin(step("A"), write()), make_user("olga")
    note = inject(run=run, step="WRITE", text="mind the gap", user=olga)
    engine.advance_run(run.pk)
    (number,) = open_steps(run)
    engine.execute_step(number)
    engine.settle_step(number)
    execution = prepared(run).execution
    assert execution is not None
    assert "mind the gap" in execution.order["agent"]["prompt"]
    assert intents(run) == [("inject", "olga")]
    ((_, data),) = told(run, "note_added")
    assert data == {"by": "olga", "note": note.pk, "step": "WRITE", "agent": "", "text": "mind the gap"}


def test_text_for_an_agent_stands_in_its_next_prompt_once() -> None:
    run = begin(write("FIRST"), write("SECOND"))
    inject(run=run, agent=AGENT, text="mind the gap")
    execution = prepared(run).execution
    assert execution is not None
    assert "mind the gap" in execution.order["agent"]["prompt"]
    assert Note.objects.get().read_by == StepRun.objects.get()


def test_text_for_a_step_whose_prompt_is_made_is_too_late() -> None:
    run = begin(write())
    prepared(run)
    before = state()
    with pytest.raises(Conflict, match="WRITE has started already"):
        inject(run=run, step="WRITE", text="x")
    assert state() == before


def test_text_for_a_step_that_is_queued_and_not_prepared_is_in_time() -> None:
    run = begin(write())
    StepRun.objects.create(run=run, number=1, step="WRITE", visit=1, attempt=1)
    assert inject(run=run, step="WRITE", text="x").step == "WRITE"


def test_text_for_an_agent_whose_last_prompt_is_made_is_too_late() -> None:
    run = begin(write())
    prepared(run)
    before = state()
    with pytest.raises(Conflict, match="engineer has no prompt before it"):
        inject(run=run, agent=AGENT, text="x")
    assert state() == before


@pytest.mark.parametrize("whom", [{"step": "WRITE"}, {"agent": AGENT}])
def test_text_that_comes_while_the_prompt_is_made_waits_and_is_too_late(whom: dict[str, Any]) -> None:
    run = begin(write())
    unprepared(run)
    refused: list[str] = []

    def add() -> None:
        try:
            inject(run=run, text="x", **whom)
        except Conflict as exc:
            refused.append(exc.message)

    with transaction.atomic():
        prepare(run, "WRITE")
        thread = waiting(add)
    thread.join(30)
    assert (len(refused), Note.objects.count()) == (1, 0)


def test_two_steps_of_an_agent_that_are_prepared_at_once_do_not_both_read_a_note() -> None:
    run = begin(write("FIRST"), write("SECOND"), step("END", needs=["FIRST", "SECOND"]))
    unprepared(run)
    inject(run=run, agent=AGENT, text="mind the gap")
    with transaction.atomic():
        prepare(run, "FIRST")
        thread = waiting(lambda: prepare(run, "SECOND"))
    thread.join(30)
    prompts = Execution.objects.order_by("step").values_list("order__agent__prompt", flat=True)
    assert ["mind the gap" in prompt for prompt in prompts] == [True, False]


def unprepared(run: Run) -> None:
    """Queue the first steps, as a worker does that dies before it has prepared them."""
    with turn_of(run.pk) as turn:
        assert turn is not None
        advance(turn)


def prepare(run: Run, name: str) -> None:
    engine.prepare_step(StepRun.objects.get(run=run, step=name).pk)


def waiting(action: Callable[[], object]) -> threading.Thread:
    """A thread that does it on a connection of its own, and waits for a lock now."""

    def act() -> None:
        try:
            action()
        finally:
            connection.close()

    thread = threading.Thread(target=act)
    thread.start()
    deadline = time.monotonic() + 30
    locks = "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    with connection.cursor() as cursor:
        while not cursor.execute(locks).fetchone():
            assert thread.is_alive(), "it did not wait"
            assert time.monotonic() < deadline
            cursor.execute("SELECT pg_stat_clear_snapshot()")
            time.sleep(0.01)
    return thread


def test_text_for_a_step_of_a_graph_that_has_ended_is_too_late() -> None:
    run = begin(write(), step("B", needs=["WRITE"]))
    row = prepared(run)
    StepRun.objects.filter(pk=row.pk).update(status="succeeded", ended_at=row.queued_at)
    with pytest.raises(Conflict, match="WRITE has started already"):
        inject(run=run, step="WRITE", text="x")


def test_text_for_items_that_have_not_begun_is_in_time() -> None:
    run = begin(write(matrix={"n": [1, 2]}, parallel=1), step("B", needs=["WRITE"]))
    prepared(run)
    assert inject(run=run, step="WRITE", text="x").pk


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no text": ({"step": "WRITE", "text": " "}, "no text"),
    "too much text": ({"step": "WRITE", "text": "x" * 20_001}, "too long"),
    "text with NUL": ({"step": "WRITE", "text": "a\0"}, "cannot be stored"),
    "neither step nor agent": ({"text": "x"}, "either a step or an agent"),
    "both": ({"text": "x", "step": "WRITE", "agent": AGENT}, "either a step or an agent"),
    "unknown step": ({"text": "x", "step": "WRITTE"}, "did you mean"),
    "unknown agent": ({"text": "x", "agent": "enginer"}, "did you mean"),
    "a script": ({"text": "x", "step": "A"}, "has no prompt"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_context_changes_nothing(name: str) -> None:
    fields, text = BAD[name]
    run = begin(step("A"), write())
    before = state()
    with pytest.raises(UserError, match=text):
        inject(run=run, **fields)
    assert state() == before


# --- Many at once -----------------------------------------------------------------------------------------------------
def test_many_runs_are_cancelled_and_each_refusal_is_told() -> None:
    done, first, second, olga = work(begin(step("A"))), begin(step("A")), begin(step("A")), make_user("olga")
    results = cancel_runs(ids=[first.pk, done.pk, second.pk, 10**9, first.pk], user=olga)
    assert [(one.id, one.run, one.code) for one in results] == [
        (first.pk, first.pk, ""), (done.pk, None, "conflict"), (second.pk, second.pk, ""), (10**9, None, "not_found")
    ]  # fmt: skip
    assert "has ended already" in results[1].error
    assert intents(second) == [("cancel", "olga")]


def test_many_runs_are_retried_and_each_refusal_is_told() -> None:
    bad = step("A", played(finished=failed()))
    lost, still_open = work(begin(bad)), begin(bad)
    results = retry_runs(ids=[lost.pk, still_open.pk])
    assert [(one.id, one.code) for one in results] == [(lost.pk, ""), (still_open.pk, "conflict")]
    assert Run.objects.get(pk=results[0].run).continues == lost


def test_what_a_person_may_not_see_is_not_there_for_them() -> None:
    run = begin(step("A"))
    (result,) = cancel_runs(ids=[run.pk], user=make_user("otto", "none"))  # type: ignore[arg-type]
    assert (result.run, result.code) == (None, "not_found")
    run.refresh_from_db()
    assert run.cancel_requested_at is None


@pytest.mark.parametrize("ids", [[], list(range(1, MOST_AT_ONCE + 2))])
def test_none_or_too_many_are_refused(ids: list[int]) -> None:
    with pytest.raises(UserError, match="runs at once"):
        cancel_runs(ids=ids)
