"""Results that have to match, loops that are left, and what failed or rejected steps have given, through the engine."""

from __future__ import annotations

from typing import Any

import pytest

from djinn.accounts.models import User
from djinn.core.errors import UserError
from djinn.executions.models import Execution
from djinn.executions.structured import order_of, unmatched_answer
from djinn.pipelines.schema import OutputSchema
from djinn.runs.approvals import decide
from djinn.runs.continuing import retry_run
from djinn.runs.models import Approval, Run, StepRun
from djinn.runs.services import start_run
from tests.make import begin, history, make_user, played, prepared, step, succeeded, told, work, write_pipeline

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("home")]
JSON = Any


def gives(**outputs: JSON) -> str:
    return played(finished=succeeded(**outputs))


def fails_with(**outputs: JSON) -> str:
    finished = {"status": "failed", "outputs": outputs, "summary": "", "error": {"reason": "error", "message": "no"}}
    return played(finished={**finished, "exit_code": 3})


def prompts(run: Run, name: str) -> list[str]:
    rows = Execution.objects.filter(step_run__run=run, step=name).order_by("pk")
    return [(row.order.get("agent") or {}).get("prompt", row.order.get("script")) for row in rows]


# --- A result that matches no key -------------------------------------------------------------------------------------
def test_a_result_with_a_remark_fails_the_step_and_says_what_to_do() -> None:
    routes = {"APPROVED": {"goto": "TEST"}, "CHANGES": {"goto": "REVIEW"}}
    run = work(begin(step("REVIEW", gives(VERDICT="APPROVED with nits"), outputs=["VERDICT"], onResult=routes),
                     step("TEST")))  # fmt: skip
    row = run.step_runs.get()
    assert (run.status, run.reason, row.status, row.reason) == ("failed", "unmatched", "failed", "unmatched")
    assert row.outputs == {"VERDICT": "APPROVED with nits"}
    assert "VERDICT is 'APPROVED with nits', but VERDICT must be exactly one of CHANGES | APPROVED" in run.message
    assert "say with 'else' what follows any other" in run.message


def test_an_agent_is_told_what_its_result_may_be_and_its_brief_holds_it() -> None:
    write_pipeline(
        {"id": "REVIEW", "agent": "reviewer", "model": "scripted/none", "input": "Look.", "outputs": ["VERDICT"],
         "onResult": {"APPROVED": {}, "CHANGES": {"retry": True}}},
    )  # fmt: skip
    agent = prepared(start_run(pipeline_id="work", inputs={})).execution.order["agent"]  # type: ignore[union-attr]
    assert sorted(agent["results"]) == ["APPROVED", "CHANGES"]
    assert "VERDICT must be exactly one of CHANGES | APPROVED" in agent["prompt"]


@pytest.mark.parametrize("more", [{"else": {}}, {"onComplete": "NEXT"}])
def test_a_step_that_says_what_follows_any_other_result_may_give_anything(more: dict[str, JSON]) -> None:
    run = begin(step("A", gives(V="who knows"), outputs=["V"], onResult={"yes": {"goto": "A"}}, **more), step("NEXT"))
    assert work(run).status == "succeeded"


def test_a_step_that_failed_unmatched_is_tried_again_by_a_retry_of_the_run() -> None:
    run = work(begin(step("A", gives(V="no"), outputs=["V"], onResult={"yes": {}})))
    again = retry_run(run=run)
    work(again)
    assert history(again) == [("A", 1, 1, "failed", "unmatched")]


def test_a_run_that_was_settled_before_results_had_to_match_does_not_succeed_by_silence() -> None:
    run = begin(step("A", gives(V="no"), outputs=["V"], onResult={"yes": {}}))
    row = prepared(run)
    StepRun.objects.filter(pk=row.pk).update(status="succeeded", outputs={"V": "no"}, ended_at=run.created_at)
    work(run)
    run.refresh_from_db()
    assert (run.status, run.reason) == ("failed", "unmatched")


def test_a_used_pipeline_whose_result_matches_nothing_is_not_run_again() -> None:
    write_pipeline(step("IN", gives(R="no"), outputs=["R"]), name="inner")
    run = begin({"id": "USE", "uses": "inner", "outputs": ["R"], "onResult": {"yes": {}}}, defaults={"retries": 3})
    for _ in range(3):
        work(run)
        for child in Run.objects.filter(parent__run=run):
            work(child)
    run.refresh_from_db()
    assert history(run) == [("USE", 1, 1, "failed", "unmatched")]
    assert Run.objects.filter(parent__run=run).count() == 1


# --- Leaving a loop ---------------------------------------------------------------------------------------------------
PLAN = step("PLAN", gives(TASKS=["a", "b", "c"]), outputs=["TASKS"], onComplete="BUILD")
BUILD = step("BUILD", loop={"over": "TASKS", "onEachComplete": "CHECK", "onAllComplete": "SHIP"})


def test_a_loop_that_would_be_left_without_a_word_is_refused_at_the_start() -> None:
    check = step("CHECK", outputs=["V"], onResult={"ok": {"continueLoop": True}, "bad": {"goto": "SHIP"}})
    write_pipeline(PLAN, BUILD, check, step("SHIP"))
    with pytest.raises(UserError, match="out of the loop of BUILD, whose other items would not be done"):
        start_run(pipeline_id="work", inputs={})


def test_a_loop_that_is_left_on_purpose_marks_the_items_that_are_not_done() -> None:
    check = step(
        "CHECK", gives(V="bad"), outputs=["V"], onResult={"ok": {"continueLoop": True}, "bad": {"break": True}}
    )
    run = work(begin(PLAN, BUILD, check, step("SHIP", "echo {{ completed_items | length }}")))
    rows = [(row.step, row.item, row.status, row.because) for row in run.step_runs.order_by("number")]
    because = "not done: CHECK[0] left the loop (bad)"
    assert rows[3:5] == [("BUILD", "1", "skipped", because), ("BUILD", "2", "skipped", because)]
    assert (rows[5][:3], run.status) == (("SHIP", "", "succeeded"), "succeeded")
    assert [data["because"] for _, data in told(run, "step_skipped")] == [because, because]
    assert prompts(run, "SHIP") == ["echo 1"]


def test_a_run_of_an_older_file_that_leaves_a_loop_fails_instead_of_succeeding() -> None:
    check = step(
        "CHECK", gives(V="bad"), outputs=["V"], onResult={"ok": {"continueLoop": True}, "bad": {"break": True}}
    )
    run = begin(PLAN, BUILD, check, step("SHIP"))
    definition = run.definition
    (found,) = [one for one in definition["steps"] if one["id"] == "CHECK"]
    found["on_result"]["bad"] = {"goto": "SHIP"}
    Run.objects.filter(pk=run.pk).update(definition=definition)
    work(run)
    run.refresh_from_db()
    assert (run.status, run.reason) == ("failed", "error")
    assert "leads out of the loop of BUILD to SHIP while 2 more items are not done" in run.message


# --- What failed and rejected steps have given ------------------------------------------------------------------------
ASK = {"id": "ASK", "approve": {"show": []}, "input": "Ship?", "continueOnError": True}


def graph(user: User, verdict: str, comment: str) -> Run:
    """A graph that asks and goes on by the decision, decided and worked off."""
    run = begin(
        ASK,
        step("SHIP", needs=["ASK"], when="steps.ASK.outputs.DECISION == 'approved'"),
        step("MEND", "echo {{ COMMENT | quote }} {{ steps.ASK.status }}", needs=["ASK"],
             when="steps.ASK.outputs.DECISION == 'rejected'"),
    )  # fmt: skip
    work(run)
    approval = Approval.objects.get(step_run__run=run)
    decide(approval_id=approval.pk, user=user, verdict=verdict, comment=comment, digest=approval.digest)
    return work(run)


def test_a_graph_goes_another_way_when_a_person_rejects() -> None:
    run = graph(make_user(), "reject", "Too bold.")
    row = run.step_runs.get(step="ASK")
    assert (row.status, row.reason) == ("failed", "rejected")
    assert row.outputs == {"DECISION": "rejected", "COMMENT": "Too bold."}
    assert [(one.step, one.status) for one in run.step_runs.exclude(step="ASK").order_by("step")] == [
        ("MEND", "succeeded"), ("SHIP", "skipped"),
    ]  # fmt: skip
    assert (prompts(run, "MEND"), run.status) == (["echo 'Too bold.' failed"], "succeeded")


def test_a_graph_goes_on_when_a_person_approves() -> None:
    run = graph(make_user(), "approve", "")
    assert {one.step: one.status for one in run.step_runs.all()} == {
        "ASK": "succeeded", "SHIP": "succeeded", "MEND": "skipped",
    }  # fmt: skip


def test_a_rejection_is_kept_where_it_fails_the_run() -> None:
    run = begin({"id": "ASK", "approve": {"show": []}, "input": "Ship?"})
    work(run)
    approval = Approval.objects.get(step_run__run=run)
    decide(approval_id=approval.pk, user=make_user(), verdict="reject", comment="No.", digest=approval.digest)
    work(run)
    ((_, data),) = told(run, "step_finished")
    assert data["outputs"] == run.step_runs.get().outputs == {"DECISION": "rejected", "COMMENT": "No."}


def test_what_a_failed_step_gave_is_kept_and_read_by_conditions_and_templates() -> None:
    run = work(
        begin(
            step("TEST", fails_with(CODE="3", LOG="red"), outputs=["CODE", "LOG"], continueOnError=True),
            step("TELL", "echo {{ LOG | quote }} {{ steps.TEST.outputs.CODE }}", needs=["TEST"],
                 when="steps.TEST.status == 'failed' and CODE == '3'"),
        )
    )  # fmt: skip
    row = run.step_runs.get(step="TEST")
    assert (row.status, row.outputs) == ("failed", {"CODE": "3", "LOG": "red"})
    assert (prompts(run, "TELL"), run.status) == (["echo red 3"], "succeeded")


def test_what_a_failed_item_gave_stands_in_the_list() -> None:
    run = work(
        begin(
            step("EACH",
                 "{% if current_item == 2 %}" + fails_with(R="bad") + "{% else %}" + gives(R="good") + "{% endif %}",
                 foreach={"over": "[1, 2, 3]"}, continueOnError=True, outputs=["R"]),
            step("JOIN", "echo {{ R | join(' ') }}", needs=["EACH"]),
        )
    )  # fmt: skip
    assert prompts(run, "JOIN") == ["echo good bad good"]


def test_a_try_that_failed_gives_nothing_to_a_routed_run() -> None:
    run = work(
        begin(
            step("A", "{% if V %}" + gives(V="again") + "{% else %}" + fails_with(V="half") + "{% endif %}",
                 outputs=["V"], retries=1),
            step("B"),
        )
    )  # fmt: skip
    assert [row[3] for row in history(run)] == ["failed", "failed"]


def test_an_answer_of_a_schema_is_asked_for_its_result_too() -> None:
    schema = OutputSchema("v", {"type": "object", "properties": {"V": {"type": "string"}}})
    agent = {"outputs": ["V"], "results": ["GOOD", "BAD"], "output_schema": order_of(schema)}
    execution = Execution(order={"agent": agent})
    assert unmatched_answer(execution, {"V": "good"}) == ""
    assert unmatched_answer(execution, {"V": "so so"}) == "V is 'so so', but V must be exactly one of GOOD | BAD"
