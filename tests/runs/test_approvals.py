"""Questions to people: who may decide, on exactly what they saw, once each, in time."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from djinn.accounts.models import Role, User
from djinn.core.errors import Conflict, Forbidden, NotFound, UserError
from djinn.executions.models import Execution
from djinn.runs.approvals import decide, expire_due, ring_decided
from djinn.runs.deciders import approvals_seen_by, approvals_to_decide
from djinn.runs.models import Approval, Decision, Run, StepRun
from djinn.runs.services import cancel_run
from tests.make import begin, history, make_user, played, step, succeeded, told, work

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("home")]

BUILD = step("BUILD", played(finished=succeeded(RESULT="good")), outputs=["RESULT"])
TOLD = ("approval_asked", "approval_decided", "approval_void", "approval_expired")


def gate(name: str = "GATE", question: str = "Ship {{ RESULT }}?", **keys: Any) -> dict[str, Any]:
    """A step that asks people."""
    return {"id": name, "approve": {"show": ["diff", "RESULT"], **keys.pop("approve", {})}, "input": question, **keys}


def asked(*steps: dict[str, Any], **top: Any) -> Approval:
    """The open question of a run of these steps, or of BUILD and a gate."""
    run = work(begin(*(steps or (BUILD, gate())), **top))
    assert run.status == "waiting", history(run)
    return Approval.objects.select_related("step_run__run").get(status="open")


def say(approval: Approval, user: User, verdict: str = "approve", **fields: Any) -> Approval:
    return decide(**{"approval_id": approval.pk, "user": user, "verdict": verdict, "digest": approval.digest, **fields})


def state(run: Run) -> Any:
    """Everything that a refused decision must leave as it was."""
    rows = [list(model.objects.order_by("pk").values()) for model in (Run, StepRun, Approval, Decision, Execution)]
    return [*rows, told(run)]


@pytest.fixture
def olga() -> User:
    return make_user("olga")


# --- Asking -----------------------------------------------------------------------------------------------------------
def test_a_question_shows_the_outputs_and_the_diff_of_what_it_is_about() -> None:
    approval = asked()
    assert (approval.question, approval.shown) == ("Ship good?", {"outputs": {"RESULT": "good"}, "diff": ""})


def test_a_question_shows_what_the_run_changed_up_to_its_base(olga: User) -> None:
    approval = asked()
    base = Run.objects.get().step_runs.get(number=1)
    Execution.objects.filter(pk=base.execution_id).update(run_diff="a diff")
    with pytest.raises(Conflict, match="asks again"):
        say(approval, olga)
    assert Approval.objects.get(status="open").shown["diff"] == "a diff"


def test_the_event_of_a_question_holds_the_digest_but_no_diff() -> None:
    approval = asked()
    ((_, data),) = told(approval.step_run.run, "approval_asked")
    assert (data["approval"], data["step"], data["digest"]) == (approval.pk, "GATE", approval.digest)
    assert (data["by"], data["count"], data["expires_at"], data["question"]) == (["operator"], 1, None, "Ship good?")
    assert "diff" not in data
    assert "shown" not in data


def test_an_output_that_nobody_gave_is_shown_as_null() -> None:
    approval = asked(step("BUILD"), gate(question="Go on?", approve={"show": ["diff"]}))
    assert approval.shown == {"outputs": {}, "diff": ""}


# --- Deciding ---------------------------------------------------------------------------------------------------------
def test_an_approved_run_goes_on(olga: User) -> None:
    approval = asked(BUILD, gate(), step("DEPLOY"))
    say(approval, olga, comment="well done")
    run = work(approval.step_run.run)
    assert run.status == "succeeded"
    assert [(name, status) for name, *_, status, _ in history(run)] == [
        ("BUILD", "succeeded"), ("GATE", "succeeded"), ("DEPLOY", "succeeded")
    ]  # fmt: skip
    assert run.step_runs.get(step="GATE").outputs == {"DECISION": "approved", "COMMENT": "well done"}


def test_a_rejected_run_fails(olga: User) -> None:
    approval = asked(BUILD, gate(), step("DEPLOY"))
    say(approval, olga, "reject", comment="not yet")
    run = work(approval.step_run.run)
    assert (run.status, run.reason) == ("failed", "rejected")
    assert "not yet" in run.message


def test_a_decision_is_told_with_who_and_why(olga: User) -> None:
    approval = asked()
    say(approval, olga, comment="fine")
    ((_, data),) = told(approval.step_run.run, "approval_decided")
    assert {name: data[name] for name in ("by", "verdict", "comment", "status", "approval")} == {
        "by": "olga", "verdict": "approve", "comment": "fine", "status": "approved", "approval": approval.pk
    }  # fmt: skip


def test_the_open_question_of_a_step_can_be_decided_by_its_name(olga: User) -> None:
    approval = asked()
    say(approval, olga, approval_id=None, run=approval.step_run.run, step="GATE")
    approval.refresh_from_db()
    assert approval.status == "approved"


def test_two_people_have_to_agree_when_two_are_asked_for(olga: User) -> None:
    approval = asked(BUILD, gate(approve={"count": 2}))
    assert say(approval, olga).status == "open"
    assert work(approval.step_run.run).status == "waiting"
    assert say(approval, make_user("oscar")).status == "approved"
    assert work(approval.step_run.run).status == "succeeded"


def test_one_who_rejects_is_enough(olga: User) -> None:
    approval = asked(BUILD, gate(approve={"count": 2}))
    say(approval, olga)
    assert say(approval, make_user("oscar"), "reject").status == "rejected"


def test_a_rejection_that_the_step_routes_is_no_failure(olga: User) -> None:
    routes = {"rejected": {"goto": "BUILD"}, "approved": {"goto": "DEPLOY"}}
    approval = asked({**BUILD, "onComplete": "GATE"}, gate(onResult=routes), step("DEPLOY"))
    say(approval, olga, "reject")
    run = work(approval.step_run.run)
    assert run.status == "waiting"
    assert [name for name, *_ in history(run)] == ["BUILD", "GATE", "BUILD", "GATE"]


# --- Who --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("by", "name", "role", "may"),
    [
        (["operator"], "pia", Role.OPERATOR, True),
        (["operator"], "pia", Role.ADMIN, True),
        (["operator"], "pia", Role.VIEWER, False),
        (["admin"], "pia", Role.OPERATOR, False),
        (["admin"], "pia", Role.ADMIN, True),
        (["pia"], "pia", Role.VIEWER, True),
        (["pia"], "paul", Role.OPERATOR, False),
        (["pia"], "paul", Role.ADMIN, True),
        (["admin", "pia"], "pia", Role.OPERATOR, True),
        (["operator"], "operator", Role.VIEWER, False),
    ],
)
def test_roles_and_names_decide_who_may(by: list[str], name: str, role: Role, may: bool) -> None:
    approval, person = asked(BUILD, gate(approve={"by": by})), make_user(name, role)
    assert list(approvals_to_decide(person)) == ([approval] if may else [])
    if may:
        assert say(approval, person).status == "approved"
        return
    before = state(approval.step_run.run)
    with pytest.raises(Forbidden, match="to decide"):
        say(approval, person)
    assert state(approval.step_run.run) == before


def test_who_started_the_run_may_decide(olga: User) -> None:
    approval = asked()
    Run.objects.update(created_by=olga)
    assert say(approval, olga).status == "approved"


def test_somebody_whose_account_is_closed_decides_nothing() -> None:
    approval, former = asked(BUILD, gate(approve={"by": ["former"]})), make_user("former", Role.ADMIN, is_active=False)
    before = state(approval.step_run.run)
    assert list(approvals_to_decide(former)) == []
    with pytest.raises((Forbidden, NotFound)):
        say(approval, former)
    assert state(approval.step_run.run) == before


def test_an_outsider_is_told_of_no_approval() -> None:
    approval, otto = asked(BUILD, gate(approve={"by": ["otto"]})), make_user("otto", Role.NONE)
    before = state(approval.step_run.run)
    assert list(approvals_seen_by(otto)) == []
    with pytest.raises(NotFound):
        say(approval, otto)
    with pytest.raises(NotFound):
        say(approval, otto, approval_id=None, run=approval.step_run.run, step="GATE")
    assert state(approval.step_run.run) == before


def test_what_a_person_has_decided_waits_for_them_no_more(olga: User) -> None:
    approval = asked(BUILD, gate(approve={"count": 2}))
    say(approval, olga)
    assert list(approvals_to_decide(olga)) == []
    assert list(approvals_to_decide(make_user("oscar"))) == [approval]


# --- Refusals ---------------------------------------------------------------------------------------------------------
Bad = Callable[[Approval, User], Any]
BAD: dict[str, tuple[Bad, type[UserError], str]] = {
    "unknown verdict": (lambda a, u: say(a, u, "maybe"), UserError, "no verdict"),
    "long comment": (lambda a, u: say(a, u, comment="x" * 4001), UserError, "comment"),
    "comment with NUL": (lambda a, u: say(a, u, comment="\0"), UserError, "comment"),
    "other digest": (lambda a, u: say(a, u, digest="0" * 64), Conflict, "has changed"),
    "no digest": (lambda a, u: say(a, u, digest=""), Conflict, "has changed"),
    "unknown approval": (lambda a, u: say(a, u, approval_id=a.pk + 1), NotFound, "no approval"),
    "unknown step": (lambda a, u: say(a, u, approval_id=None, run=a.step_run.run, step="X"), NotFound, "wait"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_decision_changes_nothing(name: str, olga: User) -> None:
    act, error, text = BAD[name]
    approval = asked()
    before = state(approval.step_run.run)
    with pytest.raises(error, match=text):
        act(approval, olga)
    assert state(approval.step_run.run) == before


def test_nobody_decides_twice(olga: User) -> None:
    approval = asked(BUILD, gate(approve={"count": 2}))
    say(approval, olga)
    before = state(approval.step_run.run)
    for verdict in ("approve", "reject"):
        with pytest.raises(Conflict, match="already decided this"):
            say(approval, olga, verdict)
    assert state(approval.step_run.run) == before


def test_what_was_decided_stays_decided(olga: User) -> None:
    approval = asked()
    say(approval, make_user("oscar"), "reject")
    before = state(approval.step_run.run)
    with pytest.raises(Conflict, match="decided already: rejected"):
        say(approval, olga)
    assert state(approval.step_run.run) == before


def test_of_two_who_decide_at_once_one_is_told_that_it_was_decided() -> None:
    approval, people, results = asked(), [make_user(name) for name in ("olga", "oscar")], []

    def act(user: User, verdict: str) -> None:
        try:
            results.append(say(approval, user, verdict).status)
        except Conflict as exc:
            results.append(exc.code)
        finally:
            connection.close()

    pairs = zip(people, ("approve", "reject"), strict=True)
    threads = [threading.Thread(target=act, args=pair) for pair in pairs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(results) == 2
    assert "conflict" in results
    assert Decision.objects.count() == 1
    assert len(told(approval.step_run.run, "approval_decided")) == 1


def test_a_void_question_takes_no_decision(olga: User) -> None:
    approval = asked()
    Approval.objects.update(status="void", ended_at=timezone.now())
    before = state(approval.step_run.run)
    with pytest.raises(Conflict, match="is void"):
        say(approval, olga)
    assert state(approval.step_run.run) == before


def test_a_run_that_has_ended_takes_no_decision(olga: User) -> None:
    approval = asked()
    cancel_run(run=approval.step_run.run)
    assert work(approval.step_run.run).status == "cancelled"
    before = state(approval.step_run.run)
    with pytest.raises(Conflict, match="has ended"):
        say(approval, olga)
    assert state(approval.step_run.run) == before


def test_a_run_that_is_being_cancelled_takes_no_decision(olga: User) -> None:
    approval = asked()
    cancel_run(run=approval.step_run.run)
    before = state(approval.step_run.run)
    with pytest.raises(Conflict, match="no longer asks"):
        say(approval, olga)
    assert state(approval.step_run.run) == before


# --- What was shown ---------------------------------------------------------------------------------------------------
def change_what_is_upstream(sql: str) -> None:
    """Change a row that is final, as only somebody with the database at hand could."""
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE runs_steprun DISABLE TRIGGER runs_steprun_guard")
        cursor.execute(sql)
        cursor.execute("ALTER TABLE runs_steprun ENABLE TRIGGER runs_steprun_guard")


OUTPUTS = "UPDATE runs_steprun SET outputs = '{}' WHERE number = 1"
CHANGES = {
    "an output that is shown": (OUTPUTS.format('{"RESULT": "bad"}'), "outputs"),
    "an output that is not": (OUTPUTS.format('{"RESULT": "good", "X": 1}'), "what it stands on"),
    "the files": ("UPDATE runs_steprun SET snapshot = repeat('9', 40) WHERE number = 1", "what it stands on"),
    "the definition": ("UPDATE runs_run SET digest = repeat('9', 64)", "what it stands on"),
    "the inputs": ("""UPDATE runs_run SET inputs = '{"new": 1}'""", "what it stands on"),
    "the diff": ("UPDATE executions_execution SET run_diff = 'other'", "diff"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_a_question_is_void_and_asked_again_when_something_has_changed(name: str, olga: User) -> None:
    sql, changed = CHANGES[name]
    approval = asked()
    change_what_is_upstream(sql)
    with pytest.raises(Conflict, match="asks again"):
        say(approval, olga)
    old, new = Approval.objects.order_by("pk")
    assert (old.pk, old.status, old.decisions.count()) == (approval.pk, "void", 0)
    assert new.status == "open"
    assert new.digest != old.digest
    types = [(kind, data["approval"]) for kind, data in told(approval.step_run.run, *TOLD)]
    assert types == [("approval_asked", old.pk), ("approval_void", old.pk), ("approval_asked", new.pk)]
    ((_, data),) = told(approval.step_run.run, "approval_void")
    assert changed in data["because"]
    assert say(new, olga).status == "approved"
    assert work(approval.step_run.run).status == "succeeded"


def test_a_change_far_upstream_makes_the_question_void(olga: User) -> None:
    approval = asked(step("FIRST"), BUILD, gate())
    change_what_is_upstream("UPDATE runs_steprun SET snapshot = repeat('9', 40) WHERE step = 'FIRST'")
    with pytest.raises(Conflict, match="asks again"):
        say(approval, olga)


def test_agreement_with_what_was_shown_before_does_not_count(olga: User) -> None:
    approval = asked(BUILD, gate(approve={"count": 2}))
    say(approval, olga)
    change_what_is_upstream("UPDATE runs_steprun SET snapshot = repeat('9', 40) WHERE number = 1")
    with pytest.raises(Conflict):
        say(approval, make_user("oscar"))
    fresh = Approval.objects.get(status="open")
    assert say(fresh, User.objects.get(username="oscar")).status == "open"
    assert say(fresh, olga).status == "approved"


# --- Time -------------------------------------------------------------------------------------------------------------
def test_a_question_tells_until_when_it_can_be_answered() -> None:
    approval = asked(BUILD, gate(approve={"expires": "1h"}))
    assert approval.expires_at is not None
    assert approval.expires_at - approval.asked_at == pytest.approx(timedelta(hours=1), abs=timedelta(seconds=5))
    assert expire_due() == 0


def test_a_question_that_nobody_answers_in_time_fails_the_step(olga: User) -> None:
    approval = asked(BUILD, gate(approve={"expires": "1h"}))
    Approval.objects.update(expires_at=timezone.now() - timedelta(seconds=1))
    with pytest.raises(Conflict, match="time to decide has passed"):
        say(approval, olga)
    assert expire_due() == 1
    run = work(approval.step_run.run)
    assert (run.status, run.reason) == ("failed", "expired")
    assert [kind for kind, _ in told(run, *TOLD)] == ["approval_asked", "approval_expired"]
    assert expire_due() == 0


def test_a_decision_whose_message_was_lost_is_rung_for_again(olga: User) -> None:
    approval = asked()
    assert ring_decided() == 0
    say(approval, olga)
    assert ring_decided() == 1
    work(approval.step_run.run)
    assert ring_decided() == 0


def test_a_cancel_makes_the_question_void() -> None:
    approval = asked()
    cancel_run(run=approval.step_run.run)
    work(approval.step_run.run)
    approval.refresh_from_db()
    assert approval.status == "void"
    assert [kind for kind, _ in told(approval.step_run.run, *TOLD)] == ["approval_asked", "approval_void"]
