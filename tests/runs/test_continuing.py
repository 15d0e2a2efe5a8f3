"""Retry, re-run and restart: new runs that go on from what an old one left, and compute nothing of it again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from djinn.accounts.models import User
from djinn.core.errors import Conflict, NotFound, UserError
from djinn.executions.models import Execution
from djinn.runs import engine
from djinn.runs.approvals import decide
from djinn.runs.continuing import rerun_from, restart_run, retry_run
from djinn.runs.models import Approval, Intent, Note, Run, StepRun
from djinn.runs.retention import remove_old_workspaces
from djinn.runs.services import cancel_run, start_run
from djinn.runs.steering import inject
from tests.make import begin, failed, history, make_user, played, prepared, step, succeeded, told, work, write_pipeline

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("home")]

GOOD = played(finished=succeeded("done", RESULT="good"))
BAD = played(finished=failed())
BUILD = step("BUILD", GOOD, outputs=["RESULT"])
TEST = step("TEST", BAD)


def ran(*steps: dict[str, Any], **top: Any) -> Run:
    return work(begin(*(steps or (BUILD, TEST)), **top))


def state() -> Any:
    """Everything that a refusal must leave as it was."""
    rows = [list(model.objects.order_by("pk").values()) for model in (Run, StepRun, Intent, Note, Execution)]
    return [*rows, [told(run) for run in Run.objects.order_by("pk")]]


def reused(run: Run) -> list[tuple[Any, ...]]:
    """The step runs that were taken over: step, status, and the number of the one they come from."""
    rows = run.step_runs.filter(reused_from__isnull=False).order_by("number")
    return list(rows.values_list("step", "status", "reused_from_id"))


# --- Retry ------------------------------------------------------------------------------------------------------------
def test_a_retry_takes_over_what_succeeded_and_does_the_rest_again() -> None:
    old = ran()
    build = old.step_runs.get(step="BUILD")
    new = work(retry_run(run=old, user=make_user("olga")))
    assert history(new) == [("BUILD", 1, 1, "succeeded", ""), ("TEST", 1, 1, "failed", "error")]
    assert reused(new) == [("BUILD", "succeeded", build.pk)]
    assert Execution.objects.count() == 3


def test_what_is_taken_over_is_the_same_but_for_its_place() -> None:
    old = ran()
    build = old.step_runs.get(step="BUILD")
    copy = retry_run(run=old).step_runs.get(step="BUILD")
    same = ("step", "item", "visit", "attempt", "because", "status", "outputs", "summary", "snapshot", "lane")
    times = ("queued_at", "started_at", "ended_at")
    assert [getattr(copy, name) for name in (*same, *times)] == [getattr(build, name) for name in (*same, *times)]
    assert (copy.outputs, copy.execution_id) == ({"RESULT": "good"}, None)


def test_the_new_run_is_of_the_same_definition_and_place_and_tells_what_it_continues() -> None:
    old = ran(priority=7)
    Run.objects.filter(pk=old.pk).update(host="vm-1")
    write_pipeline(step("OTHER"))
    new = retry_run(run=old, user=make_user("olga"))
    same = ("pipeline", "definition", "digest", "agents", "inputs", "model", "priority", "group", "group_limit")
    assert [getattr(new, name) for name in same] == [getattr(old, name) for name in same]
    assert (new.status, new.continues, new.host, new.created_by.username) == ("queued", old, "vm-1", "olga")  # type: ignore[union-attr]
    ((_, data),) = told(new, "run_queued")
    assert data == {"pipeline": "work", "by": "olga", "continues": old.pk, "verb": "retry", "reused": 1}


def test_the_intent_stands_on_the_old_run() -> None:
    old = ran()
    new = retry_run(run=old, user=make_user("olga"))
    intent = Intent.objects.get()
    assert (intent.run, intent.verb, intent.by.username, intent.details) == (old, "retry", "olga", {"run": new.pk})  # type: ignore[union-attr]


VERBS: dict[str, tuple[Callable[[Run, User], Run], dict[str, Any]]] = {
    "retry": (lambda run, user: retry_run(run=run, user=user), {}),
    "rerun": (lambda run, user: rerun_from(run=run, step="TEST", user=user), {"from_step": "TEST"}),
    "restart": (lambda run, user: restart_run(run=run, user=user), {"inputs": {}}),
}


@pytest.mark.parametrize("verb", VERBS)
def test_the_old_run_tells_what_was_asked_of_it_and_the_new_one_what_made_it(verb: str) -> None:
    act, details = VERBS[verb]
    old = ran()
    new = act(old, make_user("olga"))
    assert told(old)[-1] == (f"{verb}_requested", {"by": "olga", "run": new.pk, **details})
    assert told(new, "run_queued")[0][1]["verb"] == verb


def test_the_first_execution_begins_with_the_files_of_the_old_run() -> None:
    old = ran()
    build = old.step_runs.get(step="BUILD")
    execution = prepared(retry_run(run=old)).execution
    assert execution is not None
    assert (execution.forked_from, execution.bases) == (old.stream, [build.snapshot])


def test_a_retry_of_a_retry_comes_from_the_original() -> None:
    old = ran()
    build = old.step_runs.get(step="BUILD")
    newest = retry_run(run=work(retry_run(run=old)))
    assert reused(newest) == [("BUILD", "succeeded", build.pk)]
    assert newest.continues != old


def test_a_cancelled_run_goes_on_where_it_was_cancelled() -> None:
    old = begin(BUILD, step("DEPLOY"))
    engine.advance_run(old.pk)
    cancel_run(run=old)
    assert work(old).status == "cancelled"
    new = work(retry_run(run=old))
    assert (new.status, reused(new)) == ("succeeded", [])


def test_a_retry_of_a_graph_does_just_what_failed() -> None:
    old = ran(BUILD, step("TEST", BAD, needs=["BUILD"]), step("DOCS", needs=["BUILD"]), step("SHIP", needs=["TEST"]))
    assert old.status == "failed"
    new = retry_run(run=old)
    assert {name for name, *_ in reused(new)} == {"BUILD", "DOCS"}
    assert {row[0] for row in history(work(new))} == {"BUILD", "DOCS", "TEST", "SHIP"}


def test_bases_point_to_the_rows_of_the_new_run() -> None:
    steps = [step("LOST", BAD), step("BUILD"), step("DOCS", needs=["BUILD"]), step("JOIN", needs=["DOCS", "LOST"])]
    old = ran(*steps)
    docs = old.step_runs.get(step="DOCS")
    copy = retry_run(run=old).step_runs.get(step="DOCS")
    numbers = {row.step: row.number for row in StepRun.objects.filter(run=copy.run)}
    assert copy.bases == [numbers["BUILD"]]
    assert docs.bases != copy.bases


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "that has succeeded": (step("A"), "has succeeded"),
    "whose end no other try would change": (
        step("A", GOOD, outputs=["RESULT"], maxVisits=2, onResult={"good": {"goto": "A"}}), "would end at once"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_a_run_cannot_be_retried(name: str) -> None:
    broken, text = REFUSED[name]
    old = ran(broken)
    before = state()
    with pytest.raises(Conflict, match=text):
        retry_run(run=old)
    assert state() == before


def test_an_open_run_is_neither_retried_nor_restarted() -> None:
    old = begin(BUILD)
    before = state()
    for act in (retry_run, restart_run):
        with pytest.raises(Conflict, match="has not ended"):
            act(run=old)
    assert state() == before


def test_a_run_that_is_being_retried_is_not_retried_twice() -> None:
    old = ran()
    new = retry_run(run=old)
    before = state()
    with pytest.raises(Conflict, match=f"Run {new.pk} goes on from run {old.pk}"):
        retry_run(run=old)
    assert state() == before
    work(new)
    assert retry_run(run=old).pk > new.pk


def test_the_same_key_retries_once() -> None:
    old, olga = ran(), make_user("olga")
    first, second = (retry_run(run=old, user=olga, idempotency_key="k") for _ in range(2))
    assert first == second
    other = ran()
    with pytest.raises(Conflict, match="another request"):
        retry_run(run=other, user=olga, idempotency_key="k")


# --- Re-run -----------------------------------------------------------------------------------------------------------
def test_a_rerun_begins_at_the_step_and_takes_over_what_came_before() -> None:
    old = ran(step("PLAN"), BUILD, step("SHIP"))
    new = rerun_from(run=old, step="BUILD", user=make_user("olga"))
    assert [name for name, *_ in reused(new)] == ["PLAN"]
    assert work(new).status == "succeeded"
    assert [row[0] for row in history(new)] == ["PLAN", "BUILD", "SHIP"]
    assert told(new, "run_queued")[0][1]["from_step"] == "BUILD"
    assert Intent.objects.get(verb="rerun").details == {"run": new.pk, "from_step": "BUILD"}


def test_an_open_run_is_cancelled_when_it_is_run_again_from_a_step() -> None:
    old = begin(BUILD, {"id": "GATE", "approve": True})
    assert work(old).status == "waiting"
    new = rerun_from(run=old, step="BUILD", user=make_user("olga"))
    assert work(old).status == "cancelled"
    assert Approval.objects.get().status == "void"
    assert sorted(Intent.objects.filter(run=old).values_list("verb", flat=True)) == ["cancel", "rerun"]
    assert work(new).status == "waiting"


def test_an_approval_is_asked_again_when_the_run_begins_before_it() -> None:
    old = ran(BUILD, {"id": "GATE", "approve": True}, step("SHIP"))
    olga, approval = make_user("olga"), Approval.objects.get()
    decide(user=olga, approval_id=approval.pk, verdict="approve", digest=approval.digest)
    assert work(old).status == "succeeded"
    assert work(rerun_from(run=old, step="SHIP")).status == "succeeded"
    assert work(rerun_from(run=old, step="BUILD")).status == "waiting"


def test_a_taken_over_diff_is_what_an_approval_shows() -> None:
    old = ran(BUILD, {"id": "GATE", "approve": True})
    Execution.objects.update(run_diff="a diff")
    cancel_run(run=old)
    work(old)
    assert work(retry_run(run=old)).status == "waiting"
    assert Approval.objects.get(status="open").shown["diff"] == "a diff"


RERUNS: dict[str, tuple[dict[str, Any], type[UserError], str]] = {
    "unknown step": ({"step": "BUIL"}, UserError, "did you mean"),
    "step that never ran": ({"step": "SHIP"}, Conflict, "never ran"),
    "item that never ran": ({"step": "BUILD", "item": "3"}, Conflict, "never ran"),
    "visit that never was": ({"step": "BUILD", "visit": 2}, Conflict, "never ran"),
}


@pytest.mark.parametrize("name", RERUNS)
@pytest.mark.parametrize("is_open", [True, False])
def test_a_bad_rerun_changes_nothing(name: str, is_open: bool) -> None:
    arguments, error, text = RERUNS[name]
    middle = {"id": "GATE", "approve": True} if is_open else TEST
    old = ran(BUILD, middle, step("SHIP"))
    assert old.is_final is not is_open
    before = state()
    with pytest.raises(error, match=text):
        rerun_from(run=old, **arguments)
    assert state() == before


def test_files_that_were_removed_cannot_be_gone_on_from(settings: Any) -> None:
    old = ran()
    settings.KEEP_WORKSPACE_SECONDS = -60.0
    before = state()
    for act in (lambda: retry_run(run=old), lambda: rerun_from(run=old, step="TEST")):
        with pytest.raises(Conflict, match="were removed"):
            act()
    assert state() == before
    assert rerun_from(run=old, step="BUILD").status == "queued"


def test_files_that_an_open_run_goes_on_from_are_kept(settings: Any, home: Any) -> None:
    old = ran()
    place = home.workspaces / old.stream
    place.mkdir(parents=True, exist_ok=True)
    new = retry_run(run=old)
    settings.KEEP_WORKSPACE_SECONDS = -60.0
    assert remove_old_workspaces() == 0
    work(new)
    assert remove_old_workspaces() >= 1
    assert not place.exists()


def test_a_part_of_a_run_cannot_be_run_again_alone() -> None:
    write_pipeline(TEST, name="part")
    old = ran({"id": "USE", "uses": "part"})
    (child,) = Run.objects.exclude(pk=old.pk)
    work(child)
    assert work(old).status == "failed"
    before = state()
    for act in (retry_run, restart_run, lambda run: rerun_from(run=run, step="TEST")):
        with pytest.raises(Conflict, match=f"a part of run {old.pk}"):
            act(run=Run.objects.get(pk=child.pk))
    assert state() == before


def test_a_definition_that_cannot_be_read_any_more_is_told(home: Any) -> None:
    old = ran()
    Run.objects.filter(pk=old.pk).update(definition={"old": True})
    with pytest.raises(Conflict, match="cannot read"):
        retry_run(run=old)


# --- Notes ------------------------------------------------------------------------------------------------------------
def test_what_people_added_and_nobody_read_goes_into_the_new_run(settings: Any) -> None:
    settings.DEFAULT_MODEL = "scripted/actor"
    agent = {"id": "WRITE", "agent": "engineer", "input": "write"}
    old = begin({"id": "GATE", "approve": True}, agent)
    work(old)
    inject(run=old, step="WRITE", text="mind the gap", user=make_user("olga"))
    cancel_run(run=old)
    work(old)
    new = retry_run(run=old)
    assert list(new.notes.values_list("step", "text", "read_by")) == [("WRITE", "mind the gap", None)]


# --- Restart ----------------------------------------------------------------------------------------------------------
INPUTS = {"word": {"type": "string", "default": "a"}, "times": {"type": "integer", "default": 1}}


def test_a_restart_begins_afresh_with_changed_inputs_and_the_pipeline_as_it_is_now() -> None:
    old = ran(BUILD, inputs=INPUTS)
    write_pipeline(step("OTHER"), inputs=INPUTS)
    new = restart_run(run=old, inputs={"times": "3"}, user=make_user("olga"))
    assert (new.inputs, new.continues, new.step_runs.count()) == ({"word": "a", "times": 3}, old, 0)
    assert [row[0] for row in history(work(new))] == ["OTHER"]
    data = {"pipeline": "work", "by": "olga", "continues": old.pk, "verb": "restart"}
    assert told(new, "run_queued")[0][1] == data
    assert Intent.objects.get().details == {"run": new.pk, "inputs": {"times": "3"}}


def test_a_restart_may_be_of_another_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJINN_PROVIDERS_WITH_KEYS", "openai")
    old = ran(BUILD)
    models = [restart_run(run=old, model=model).model for model in (None, "openai/gpt-5", "")]
    assert models == ["", "openai/gpt-5", ""]
    assert Intent.objects.get(details__model="openai/gpt-5").verb == Intent.Verb.RESTART


def test_a_restart_with_a_model_that_nobody_can_be_asked_for_changes_nothing() -> None:
    agent = {"id": "WRITE", "agent": "analyst", "input": "Write.", "model": "scripted/actor"}
    old = begin(agent)
    cancel_run(run=old)
    work(old)
    before = state()
    with pytest.raises(UserError, match=r"Step WRITE of work: .* has no key") as raised:
        restart_run(run=old, model="openai/gpt-5")
    assert ("model" in raised.value.details, state()) == (True, before)


def test_values_of_inputs_that_are_gone_are_left_out() -> None:
    old = ran(BUILD, inputs=INPUTS)
    write_pipeline(BUILD, inputs={"times": INPUTS["times"]})
    assert restart_run(run=old).inputs == {"times": 1}


def test_a_restart_with_bad_inputs_changes_nothing() -> None:
    old = ran(BUILD, inputs=INPUTS)
    before = state()
    with pytest.raises(UserError) as raised:
        restart_run(run=old, inputs={"times": "many", "wrod": "b"})
    assert set(raised.value.details) == {"times", "wrod"}
    assert state() == before


def test_a_restart_of_a_pipeline_that_is_gone_is_told() -> None:
    old = ran(BUILD)
    write_pipeline(BUILD).unlink()
    with pytest.raises(NotFound):
        restart_run(run=old)


def test_a_restart_runs_once_for_one_key() -> None:
    old, olga = ran(BUILD), make_user("olga")
    first, second = (restart_run(run=old, user=olga, idempotency_key="k") for _ in range(2))
    assert first == second
    assert Intent.objects.count() == 1


def test_a_key_goes_on_from_a_run_in_one_way_only() -> None:
    old, olga = ran(BUILD), make_user("olga")
    restart_run(run=old, user=olga, idempotency_key="k")
    for act in (
        lambda: restart_run(run=old, user=olga, idempotency_key="k", inputs={"x": 1}),
        lambda: rerun_from(run=old, step="BUILD", user=olga, idempotency_key="k"),
        lambda: start_run(pipeline_id=old.pipeline, inputs=old.inputs, user=olga, idempotency_key="k"),
    ):
        with pytest.raises(Conflict, match="another request"):
            act()


def test_two_restarts_with_one_key_at_the_same_moment_are_one_wish() -> None:
    old, olga, barrier, found = ran(BUILD), make_user("olga"), threading.Barrier(6), []

    def restart() -> None:
        try:
            barrier.wait(10)
            found.append(restart_run(run=Run.objects.get(pk=old.pk), user=olga, idempotency_key="k").pk)
        finally:
            connection.close()

    threads = [threading.Thread(target=restart) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert (len(found), len(set(found))) == (6, 1)
    assert Intent.objects.count() == len(told(old, "restart_requested")) == 1


def test_a_retry_whose_files_may_soon_be_gone_says_so_by_the_clock_of_the_database(settings: Any) -> None:
    old = ran()
    settings.KEEP_WORKSPACE_SECONDS = 3600.0
    assert old.ended_at is not None
    assert old.ended_at > timezone.now() - timedelta(hours=1)
    assert retry_run(run=old).status == "queued"
