"""`manage.py runs` and `manage.py approvals`."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError

from djinn.accounts.models import Role
from djinn.runs.models import Approval, Decision, Intent, Run, StepRun
from tests.make import begin, failed, make_user, played, step, succeeded, told, work

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("home")]

BUILD = step("BUILD", played(finished=succeeded(RESULT="good\x1b[31m")), outputs=["RESULT"])
GATE: dict[str, Any] = {"id": "GATE", "approve": {"show": ["diff", "RESULT"]}, "input": "Ship {{ RESULT }}?"}
BAD = step("TEST", played(finished=failed()))


def asked() -> Approval:
    work(begin(BUILD, GATE))
    return Approval.objects.select_related("step_run__run").get()


def state() -> Any:
    rows = [list(model.objects.order_by("pk").values()) for model in (Run, StepRun, Approval, Decision, Intent)]
    return [*rows, [told(run) for run in Run.objects.order_by("pk")]]


# --- Approvals --------------------------------------------------------------------------------------------------------
def test_what_waits_is_listed_without_what_could_steer_a_terminal(capsys: Any) -> None:
    approval = asked()
    call_command("approvals", "list")
    call_command("approvals", "show", str(approval.pk))
    printed = capsys.readouterr().out
    assert f"{approval.pk}: open, run {approval.step_run.run_id}, GATE (0 of 1 agreed; for operator): Ship" in printed
    assert "RESULT = good" in printed
    assert "\x1b" not in printed


def test_nothing_that_waits_is_told(capsys: Any) -> None:
    call_command("approvals", "list")
    assert "Nothing is waiting" in capsys.readouterr().out


def test_a_person_approves_with_a_comment(capsys: Any) -> None:
    approval = asked()
    make_user("olga")
    call_command("approvals", "approve", str(approval.pk), "--as", "olga", "--comment", "fine")
    decision = Decision.objects.get()
    assert (decision.user.username, decision.verdict, decision.comment) == ("olga", "approve", "fine")
    assert "approved" in capsys.readouterr().out
    call_command("approvals", "list", "--all")
    assert "approved" in capsys.readouterr().out


def test_the_only_administrator_is_meant_when_nobody_is_named() -> None:
    approval = asked()
    make_user("ada", Role.ADMIN)
    call_command("approvals", "reject", str(approval.pk))
    assert Decision.objects.get().user.username == "ada"


REFUSALS: dict[str, tuple[tuple[str, ...], str]] = {
    "nobody named": (("approve", "{id}"), "--as USER"),
    "somebody unknown": (("approve", "{id}", "--as", "nemo"), "nobody 'nemo'"),
    "somebody who may not": (("approve", "{id}", "--as", "vera"), "operator to decide"),
    "somebody inactive": (("approve", "{id}", "--as", "former"), "nobody 'former'"),
    "an unknown approval": (("approve", "999999", "--as", "olga"), "no approval 999999"),
    "an approval beyond all numbers": (("show", "9" * 30), "no approval"),
    "a long comment": (("approve", "{id}", "--as", "olga", "--comment", "x" * 5000), "comment"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_bad_decision_changes_nothing(name: str) -> None:
    arguments, text = REFUSALS[name]
    approval = asked()
    make_user("olga")
    make_user("vera", Role.VIEWER)
    make_user("former", Role.ADMIN, is_active=False)
    before = state()
    with pytest.raises(CommandError, match=text):
        call_command("approvals", *(part.format(id=approval.pk) for part in arguments))
    assert state() == before


# --- Runs -------------------------------------------------------------------------------------------------------------
def test_runs_are_paused_resumed_and_cancelled_in_a_persons_name(capsys: Any) -> None:
    runs, olga = [begin(BUILD), begin(BUILD)], make_user("olga")
    for verb in ("pause", "resume", "cancel"):
        call_command("runs", verb, *(str(run.pk) for run in runs), "--as", "olga")
    assert list(runs[1].intents.values_list("verb", "by")) == [
        ("pause", olga.pk), ("resume", olga.pk), ("cancel", olga.pk)
    ]  # fmt: skip
    assert f"Run {runs[0].pk} is being cancelled." in capsys.readouterr().out


def test_one_refusal_stops_no_other_and_is_the_exit_code(capsys: Any) -> None:
    done, still_open = work(begin(BUILD)), begin(BUILD)
    for verb in ("pause", "cancel"):
        with pytest.raises(CommandError, match="1 refused"):
            call_command("runs", verb, str(done.pk), str(still_open.pk))
    assert "has ended already" in capsys.readouterr().err
    still_open.refresh_from_db()
    assert still_open.cancel_requested_at is not None


def test_a_failed_run_is_retried_run_again_and_restarted(capsys: Any) -> None:
    inputs = {"word": {"type": "string", "default": "a"}}
    old = work(begin(BUILD, BAD, inputs=inputs))
    for arguments in (("retry", old.pk), ("rerun", old.pk, "--from", "TEST"), ("restart", old.pk, "--input", "word=b")):
        call_command("runs", *map(str, arguments))
    new = list(old.continuations.order_by("pk"))
    assert [(run.step_runs.count(), run.inputs["word"]) for run in new] == [(1, "a"), (1, "a"), (0, "b")]
    printed = capsys.readouterr().out
    assert all(f"/runs/{run.pk}/" in printed for run in new)
    assert list(old.intents.values_list("verb", flat=True)) == ["retry", "rerun", "restart"]


def test_a_run_explains_what_it_waits_for(capsys: Any) -> None:
    run = work(begin(BUILD, GATE, step("SHIP")))
    call_command("runs", "explain", str(run.pk))
    printed = capsys.readouterr().out
    assert "GATE (waiting): waiting for 1 approval by operator" in printed
    assert "SHIP (not started)" in printed
    work(begin(BUILD))
    call_command("runs", "explain", str(Run.objects.latest("pk").pk))
    assert "Nothing is blocked." in capsys.readouterr().out


def test_context_is_added(settings: Any) -> None:
    settings.DEFAULT_MODEL = "scripted/actor"
    run = begin(BUILD, {"id": "WRITE", "agent": "engineer", "input": "write"})
    call_command("runs", "inject", str(run.pk), "mind the gap", "--step", "WRITE")
    assert run.notes.get().text == "mind the gap"


BAD_VERBS: dict[str, tuple[tuple[str, ...], str]] = {
    "an unknown run": (("rerun", "999999", "--from", "BUILD"), "no run 999999"),
    "a run beyond all numbers": (("pause", "9" * 30), "1 refused"),
    "a step that never ran": (("rerun", "{id}", "--from", "SHIP"), "never ran"),
    "an open run": (("restart", "{id}"), "has not ended"),
    "a viewer": (("pause", "{id}", "--as", "vera"), "is no operator"),
    "an input that is no pair": (("restart", "{id}", "--input", "word"), "NAME=VALUE"),
    "context for nobody": (("inject", "{id}", "text"), "either a step or an agent"),
}


@pytest.mark.parametrize("name", BAD_VERBS)
def test_a_bad_verb_changes_nothing(name: str) -> None:
    arguments, text = BAD_VERBS[name]
    run = work(begin(BUILD, GATE, step("SHIP")))
    make_user("vera", Role.VIEWER)
    before = state()
    with pytest.raises(CommandError, match=text):
        call_command("runs", *(part.format(id=run.pk) for part in arguments))
    assert state() == before
