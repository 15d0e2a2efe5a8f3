"""Every construct of the language through the engine: rows, events and prompts, with the stub playing containers."""

from __future__ import annotations

import sys
import threading
import time
from datetime import timedelta
from typing import Any

import pytest
from django.conf import settings
from django.db import connection, transaction
from django.utils import timezone

from djinn.core.errors import Conflict
from djinn.executions.launch import launch
from djinn.executions.models import Execution
from djinn.executions.places import present_runner
from djinn.executions.services import give_up
from djinn.executions.states import OPEN, Reason
from djinn.runner.base import Phase
from djinn.runs import claiming, engine, preparing
from djinn.runs.advance import advance
from djinn.runs.approvals import decide
from djinn.runs.continuing import retry_run
from djinn.runs.explanation import explain
from djinn.runs.models import Approval, Note, Run, StepRun
from djinn.runs.orders import order_of
from djinn.runs.services import cancel_run, start_run
from djinn.runs.states import StepStatus
from djinn.runs.sweep import sweep
from djinn.runs.turn import turn_of
from tests.make import (
    begin,
    claimed,
    failed,
    history,
    make_execution,
    make_user,
    played,
    prepared,
    step,
    succeeded,
    told,
    work,
    write_pipeline,
)

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("home")]
JSON = Any


def gives(**outputs: JSON) -> str:
    return played(finished=succeeded(**outputs))


def fails(reason: str = "error") -> str:
    return played(finished=failed(reason))


def steps_of(run: Run) -> list[str]:
    """`STEP[item] status` of every step run, in the order of creation."""
    rows = run.step_runs.order_by("number").values_list("step", "item", "status")
    return [f"{name}[{item}] {status}" if item else f"{name} {status}" for name, item, status in rows]


def prompts(run: Run, name: str) -> list[str]:
    """The scripts of the executions of a step, in order."""
    rows = Execution.objects.filter(step_run__run=run, step=name).order_by("pk")
    return [row.order.get("script") or row.order["agent"]["prompt"] for row in rows]


# --- Routed -----------------------------------------------------------------------------------------------------------
def test_a_loop_runs_its_steps_once_for_each_item_and_then_goes_on() -> None:
    run = work(
        begin(
            step("PLAN", gives(TASKS=["a", "b"]), outputs=["TASKS"], onComplete="BUILD"),
            step("BUILD", "echo {{ current_item }} {{ completed_items | length }}",
                 loop={"over": "TASKS", "onEachComplete": "CHECK", "onAllComplete": "SHIP"}),
            step("CHECK", "echo {{ current_item }}", outputs=["OK"], onResult={"ok": {"continueLoop": True}}),
            step("SHIP"),
        )
    )  # fmt: skip
    assert run.status == "succeeded"
    assert steps_of(run) == [
        "PLAN succeeded", "BUILD[0] succeeded", "CHECK[0] succeeded", "BUILD[1] succeeded", "CHECK[1] succeeded",
        "SHIP succeeded",
    ]  # fmt: skip
    assert prompts(run, "BUILD") == ["echo a 0", "echo b 1"]
    assert prompts(run, "CHECK") == ["echo a", "echo b"]


def test_a_loop_over_an_empty_list_goes_on_behind_it() -> None:
    run = work(
        begin(
            step("PLAN", gives(TASKS="[]"), outputs=["TASKS"], onComplete="BUILD"),
            step("BUILD", loop={"over": "TASKS", "onAllComplete": "SHIP"}),
            step("SHIP"),
        )
    )
    assert (run.status, steps_of(run)) == ("succeeded", ["PLAN succeeded", "BUILD skipped", "SHIP succeeded"])


@pytest.mark.parametrize(
    ("value", "words"),
    [("no list", "no JSON list"), ({"a": 1}, "a mapping, not a list"), (list(range(1001)), "at most 1000")],
)
def test_a_loop_over_what_is_no_list_or_too_long_fails_with_the_reason(value: JSON, words: str) -> None:
    run = work(
        begin(
            step("PLAN", gives(TASKS=value), outputs=["TASKS"], onComplete="BUILD"),
            step("BUILD", loop={"over": "TASKS"}),
        )
    )
    assert (run.status, run.reason) == ("failed", "input")
    assert words in run.message
    assert Execution.objects.filter(step="BUILD").count() == 0


def test_a_result_may_ask_for_another_try_with_the_files_and_the_reason_of_before() -> None:
    run = begin(
        step("WRITE", outputs=["V"], onComplete="CHECK"),
        step("CHECK", gives(V="NO", WHY="too short"), outputs=["V", "WHY"],
             onResult={"no": {"retry": True, "maxRetries": 2}}),
    )  # fmt: skip
    work(run)
    assert history(run)[1:] == [("CHECK", 1, number, "succeeded", "") for number in (1, 2, 3)]
    assert (run.status, run.reason) == ("failed", "retries")
    assert [row.bases for row in run.step_runs.filter(step="CHECK")] == [[1], [1], [1]]


def test_a_notice_reaches_the_next_prompt_of_its_agent_once() -> None:
    write_pipeline(
        step("CHECK", gives(V="BAD"), outputs=["V"],
             onResult={"bad": {"goto": "FIX", "notify": {"agent": "engineer", "message": "It is {{ V }}."}}}),
        {"id": "FIX", "agent": "engineer", "model": "scripted/none", "input": "Mend it.", "onComplete": "AGAIN"},
        {"id": "AGAIN", "agent": "engineer", "model": "scripted/none", "input": "Once more."},
    )  # fmt: skip
    run = work(start_run(pipeline_id="work", inputs={}))
    (event,) = told(run, "notified")
    assert (event[1]["agent"], event[1]["text"]) == ("engineer", "It is BAD.")
    assert "It is BAD." in prompts(run, "FIX")[0]
    assert "It is BAD." not in prompts(run, "AGAIN")[0]
    assert Note.objects.get().read_by == run.step_runs.get(step="FIX")


# --- Graph ------------------------------------------------------------------------------------------------------------
def test_a_graph_runs_in_parallel_and_joins_with_outputs_in_item_order() -> None:
    run = begin(
        step("LIST", gives(FILES=["x", "y", "z"]), outputs=["FILES"]),
        step("READ", needs=["LIST"], foreach={"over": "FILES", "parallel": 2}, outputs=["R"]),
        step("SIDE", needs=["LIST"]),
        step("JOIN", "echo {{ R | tojson }} {{ steps.SIDE.status }}", needs=["READ", "SIDE"]),
    )
    engine.advance_run(run.pk)
    for name in ("prepare", "execute", "settle"):
        getattr(engine, f"{name}_step")(run.step_runs.get(step="LIST").pk)
    assert steps_of(run) == ["LIST succeeded", "READ[0] queued", "READ[1] queued", "SIDE queued"]
    work(run)
    assert run.status == "succeeded"
    assert prompts(run, "JOIN") == ['echo ["ok", "ok", "ok"] succeeded']
    assert {row.lane for row in run.step_runs.all()} == {"LIST", "READ.0", "READ.1", "READ.2", "SIDE", "JOIN"}


def test_a_failed_step_skips_what_needs_it_and_other_branches_go_on() -> None:
    run = work(
        begin(
            step("A", fails()),
            step("B", needs=["A"]),
            step("C", needs=["B"]),
            step("D", when="true"),
            step("E", needs=["A"], when="steps.A.status == 'failed'"),
        )
    )
    assert (run.status, run.reason) == ("failed", "error")
    assert sorted(steps_of(run)) == ["A failed", "B skipped", "C skipped", "D succeeded", "E succeeded"]


def test_a_failure_that_is_tolerated_lets_the_join_go_on_with_null_for_it() -> None:
    run = work(
        begin(
            step("ONE", "{% if matrix.n == 2 %}" + fails() + "{% endif %}", matrix={"n": [1, 2, 3]},
                 outputs=["V"], continueOnError=True),
            step("JOIN", "echo {{ V | tojson }}", needs=["ONE"]),
        )
    )  # fmt: skip
    assert run.status == "succeeded"
    assert prompts(run, "JOIN") == ['echo ["ok", null, "ok"]']


def test_a_condition_that_cannot_be_told_fails_its_step() -> None:
    run = work(begin(step("A", gives(N=3), outputs=["N"]), step("B", needs=["A"], when="N < 'x'")))
    assert (run.status, run.reason) == ("failed", "input")
    assert "cannot order" in run.message
    assert steps_of(run) == ["A succeeded", "B failed"]


# --- Used pipelines ---------------------------------------------------------------------------------------------------
def work_all() -> None:
    for _ in range(30):
        for run in Run.objects.order_by("pk"):
            if not run.is_final:
                work(run)


def test_a_used_pipeline_runs_as_a_step_and_gives_its_outputs() -> None:
    write_pipeline(step("IN", "echo {{ what }}", outputs=["R"]), name="inner", inputs={"what": {"type": "string"}})
    run = begin(
        step("A", gives(V="hello"), outputs=["V"], onComplete="USE"),
        {"id": "USE", "uses": "inner", "with": {"what": "{{ V }} world"}, "outputs": ["R"], "onComplete": "END"},
        step("END", "echo {{ R }}"),
    )
    work_all()
    run.refresh_from_db()
    child = Run.objects.get(parent__step="USE")
    assert (run.status, child.status, child.depth) == ("succeeded", "succeeded", 1)
    assert prompts(child, "IN") == ["echo hello world"]
    assert prompts(run, "END") == ["echo ok"]
    execution = Execution.objects.get(step="IN")
    assert (execution.workspace, execution.lane) == (run.stream, f"in{child.parent_id}.main")


def test_a_used_pipeline_that_fails_fails_its_step_and_a_cancel_reaches_it() -> None:
    write_pipeline(step("IN", fails()), name="inner")
    run = begin({"id": "USE", "uses": "inner"})
    work_all()
    run.refresh_from_db()
    assert (run.status, run.reason) == ("failed", "child")
    write_pipeline(step("IN", played(hold=True)), name="inner")
    second = start_run(pipeline_id="work", inputs={})
    engine.advance_run(second.pk)
    cancel_run(run=second)
    work_all()
    second.refresh_from_db()
    assert second.status == "cancelled"
    assert {child.status for child in Run.objects.filter(parent__run=second)} == {"cancelled"}


def test_a_used_pipeline_that_does_not_exist_any_more_fails_the_step() -> None:
    write_pipeline(step("IN"), name="inner")
    run = begin({"id": "USE", "uses": "inner"})
    write_pipeline(step("IN"), name="inner").unlink()
    work_all()
    run.refresh_from_db()
    assert (run.status, run.reason) == ("failed", "input")
    assert "no pipeline 'inner'" in run.message


# --- Approvals --------------------------------------------------------------------------------------------------------
def waiting_run(**keys: JSON) -> tuple[Run, Approval]:
    run = begin(
        step("BUILD", gives(V="1.0"), outputs=["V"], onComplete="ASK"),
        {"id": "ASK", "approve": {"by": ["operator"], "show": ["V"]}, "input": "Ship {{ V }}?", **keys},
        step("SHIP", "echo {{ DECISION }}"),
    )
    work(run)
    run.refresh_from_db()
    return run, Approval.objects.get(step_run__run=run)


def test_a_run_waits_for_a_person_and_goes_on_by_the_decision() -> None:
    run, approval = waiting_run(onComplete="SHIP")
    assert (run.status, approval.question, approval.shown) == ("waiting", "Ship 1.0?", {"outputs": {"V": "1.0"}})
    (reason,) = [one for one in explain(run) if one.step == "ASK"]
    assert (reason.state, reason.blocked_by[0].kind) == ("waiting", "approval")
    decide(approval_id=approval.pk, user=make_user(), verdict="approve", comment="Go.", digest=approval.digest)
    work(run)
    assert (run.status, prompts(run, "SHIP")) == ("succeeded", ["echo approved"])


def test_a_rejection_fails_the_step_unless_it_is_routed_on() -> None:
    run, approval = waiting_run(onComplete="SHIP")
    user = make_user()
    decide(approval_id=approval.pk, user=user, verdict="reject", comment="No.", digest=approval.digest)
    work(run)
    assert (run.status, run.reason, steps_of(run)[-1]) == ("failed", "rejected", "ASK failed")
    routed, approval = waiting_run(onResult={"approved": {"goto": "SHIP"}, "rejected": {"goto": "BUILD"}})
    decide(approval_id=approval.pk, user=user, verdict="reject", comment="No.", digest=approval.digest)
    work(routed)
    assert steps_of(routed) == ["BUILD succeeded", "ASK succeeded", "BUILD succeeded", "ASK waiting"]
    with pytest.raises(Conflict):
        decide(approval_id=approval.pk, user=user, verdict="approve", comment="", digest=approval.digest)


def test_a_cancel_ends_a_run_that_waits_and_voids_its_question() -> None:
    run, approval = waiting_run(onComplete="SHIP")
    cancel_run(run=run)
    work(run)
    approval.refresh_from_db()
    assert (run.status, approval.status) == ("cancelled", "void")


# --- Pause ------------------------------------------------------------------------------------------------------------
def test_a_paused_run_starts_nothing_and_says_so() -> None:
    run = begin(step("A"), step("B"))
    engine.advance_run(run.pk)
    Run.objects.filter(pk=run.pk).update(paused_at=run.created_at)
    first = StepRun.objects.get(run=run)
    engine.execute_step(first.pk)
    first.refresh_from_db()
    assert first.status == "queued"
    engine.advance_run(run.pk)
    run.refresh_from_db()
    assert run.status == "paused"
    assert {one.kind for found in explain(run) if found.step == "A" for one in found.blocked_by} == {"pause"}
    Run.objects.filter(pk=run.pk).update(paused_at=None)
    work(run)
    assert run.status == "succeeded"
    assert [kind for kind, _ in told(run, "run_paused", "run_resumed")] == ["run_paused", "run_resumed"]


# --- Hosts ------------------------------------------------------------------------------------------------------------
def lost_host(run: Run) -> None:
    """The host that the run is bound to is silent for longer than anybody waits."""
    long_ago = timezone.now() - timedelta(days=1)
    Run.objects.filter(pk=run.pk).update(host="gone")
    for execution in Execution.objects.filter(step_run__run=run, status__in=OPEN):
        Execution.objects.filter(pk=execution.pk).update(host="gone", lease_expires_at=long_ago, created_at=long_ago)


def test_a_run_leaves_a_lost_host_that_holds_nothing_of_it() -> None:
    run = begin(step("A"))
    engine.advance_run(run.pk)
    lost_host(run)
    sweep()
    work(run)
    run.refresh_from_db()
    assert (run.status, run.host) == ("succeeded", settings.HOST_NAME)
    assert history(run) == [("A", 1, 1, "failed", "lost"), ("A", 1, 2, "succeeded", "")]


def test_a_run_stays_bound_to_the_host_that_has_its_files() -> None:
    run = begin(step("A"), step("B"))
    engine.advance_run(run.pk)
    for name in ("prepare", "execute", "settle"):
        getattr(engine, f"{name}_step")(run.step_runs.get(step="A").pk)
    lost_host(run)
    sweep()
    run.refresh_from_db()
    assert run.host == "gone"


# --- What went wrong --------------------------------------------------------------------------------------------------
def agent(name: str, text: str, **keys: JSON) -> dict[str, JSON]:
    return {"id": name, "agent": "engineer", "model": "scripted/none", "input": text, **keys}


def test_a_retry_in_a_new_run_is_told_what_went_wrong_in_the_old_one() -> None:
    run = begin(agent("FIX", "Mend it."))
    engine.advance_run(run.pk)
    row = run.step_runs.get()
    with turn_of(run.pk) as turn:
        assert turn is not None
        turn.end_step(row, StepStatus.FAILED, reason="error", message="the tests are red")
    work(run)
    again = retry_run(run=run, user=make_user())
    engine.advance_run(again.pk)
    assert "the tests are red" in prompts(again, "FIX")[0]


def test_a_note_that_comes_while_a_prompt_is_made_stands_in_it() -> None:
    run = begin(agent("FIX", "Mend it."))
    with turn_of(run.pk) as turn:
        assert turn is not None
        advance(turn)
    row = run.step_runs.get()
    pipeline, past = turn.pipeline, turn.history
    early = order_of(row, pipeline, past)
    Note.objects.create(run=run, step="FIX", text="Mind the time zone.")
    with pytest.raises(preparing._Outdated):
        preparing._store_execution(row, early)
    engine.prepare_step(row.pk)
    assert "Mind the time zone." in prompts(run, "FIX")[0]


# --- Races and crashes ------------------------------------------------------------------------------------------------
def test_nothing_is_launched_for_a_step_run_that_ended_before_its_execution_was_claimed() -> None:
    run = begin(step("A"))
    row = prepared(run)
    with turn_of(run.pk) as turn:
        assert turn is not None
        turn.end_step(row, StepStatus.CANCELLED, reason="cancelled")
    assert claiming._claim(row) is None
    row.execution.refresh_from_db()
    assert row.execution.lease_token == 0
    assert present_runner().inspect(row.execution.key).phase is Phase.ABSENT


def test_a_cancel_that_waited_for_a_preparation_drops_what_it_made() -> None:
    run = begin(step("A"))
    with turn_of(run.pk) as turn:
        assert turn is not None
        advance(turn)
    row = run.step_runs.get()
    cancel_run(run=run)
    is_locked, may_commit = threading.Event(), threading.Event()

    def prepare_slowly() -> None:
        with transaction.atomic():
            locked = StepRun.objects.select_for_update().get(pk=row.pk)
            locked.execution = make_execution(stream=run.stream)
            locked.save(update_fields=["execution"])
            is_locked.set()
            may_commit.wait(20)
        connection.close()

    def advance_it() -> None:
        engine.advance_run(run.pk)
        connection.close()

    slow, canceller = threading.Thread(target=prepare_slowly), threading.Thread(target=advance_it)
    slow.start()
    is_locked.wait(20)
    canceller.start()
    wait_until_somebody_waits_for_a_lock()
    may_commit.set()
    slow.join(20)
    canceller.join(20)
    row.refresh_from_db()
    assert (row.status, row.execution.status) == ("cancelled", "killed")


def wait_until_somebody_waits_for_a_lock() -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'")
            if cursor.fetchone()[0]:
                return
        time.sleep(0.02)
    raise AssertionError("nobody waits")


def test_a_step_that_was_prepared_meanwhile_is_not_failed_by_a_second_ring() -> None:
    run = begin(step("A"))
    row = prepared(run)
    stale = StepRun.objects.select_related("run").get(pk=row.pk)
    assert preparing._fail(stale, Reason.BUDGET, "nothing is left") is None
    row.refresh_from_db()
    assert row.status == "queued"


def test_a_container_that_still_writes_to_the_lane_is_stopped_before_the_next_one_begins() -> None:
    run = begin(step("A", played(hold=True)))
    row = prepared(run)
    lease = claimed(row.execution, host=settings.HOST_NAME)
    launch(row.execution, lease, present_runner())
    assert give_up(execution=Execution.objects.get(pk=row.execution_id), message="its host was silent")
    engine.settle_step(row.pk)
    second = run.step_runs.get(attempt=2)
    other = claimed(second.execution, host=settings.HOST_NAME)
    launch(second.execution, other, present_runner())
    assert present_runner().inspect(row.execution.key).phase is Phase.EXITED
    assert present_runner().inspect(second.execution.key).phase is Phase.RUNNING


def test_many_items_that_cannot_be_prepared_fail_one_by_one() -> None:
    foreach = {"over": list(range(150)), "parallel": 1}
    run = begin(step("EACH", "{% for x in 3 %}{% endfor %}", foreach=foreach, continueOnError=True))
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(500)
    try:
        work(run)
    finally:
        sys.setrecursionlimit(limit)
    assert run.step_runs.filter(status="failed").count() == 150


def test_the_run_tells_the_failure_that_ended_it() -> None:
    run = work(
        begin(
            step("A", played(finished=failed("error", "A is broken"))),
            step("B", played(finished=failed("error", "B is broken")), continueOnError=True),
        )
    )
    assert "A is broken" in run.message
    assert "B is broken" not in run.message
