"""The verbs on the pages: what is offered, what it does, and what is told when it cannot be done."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from djinn.accounts.models import User
from djinn.dashboard.verbs import offers_of
from djinn.executions.models import Artifact, Execution
from djinn.pipelines.schema import Pipeline, Step, WorkspaceSource, to_snapshot
from djinn.runs.models import Note, Run
from tests.dashboard.make import Browser, end_run, end_step, make_run, make_step
from tests.make import begin, failed, played, step, succeeded, work

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("home")]

AGENTS = {"writer": {"name": "Writer"}}
DEFINITION: dict[str, Any] = {"steps": [{"id": "WRITE", "kind": "agent", "agent": "writer"}]}


def text_of(client: Client, path: str) -> str:
    return client.get(path).content.decode()


def ended(status: str = "failed") -> Run:
    run = make_run(agents=AGENTS)
    end_step(make_step(run), status)
    end_run(run, status)
    return run


def open_run(**columns: Any) -> Run:
    run = make_run(agents=AGENTS)
    make_step(run)
    Run.objects.filter(pk=run.pk).update(**columns)
    run.refresh_from_db()
    return run


# --- Which are offered ------------------------------------------------------------------------------------------------
def test_a_run_that_has_not_begun_can_be_paused_told_and_cancelled() -> None:
    assert offers_of(make_run(agents=AGENTS)) == ["pause", "note", "cancel"]


def test_a_run_without_agents_cannot_be_told_anything() -> None:
    assert offers_of(make_run()) == ["pause", "cancel"]


def test_an_open_run_can_be_run_again_from_a_step() -> None:
    assert offers_of(open_run()) == ["pause", "note", "rerun", "cancel"]


def test_a_paused_run_can_be_resumed() -> None:
    assert offers_of(open_run(paused_at=timezone.now())) == ["resume", "note", "rerun", "cancel"]


def test_nothing_is_offered_while_a_run_is_being_cancelled() -> None:
    assert offers_of(open_run(cancel_requested_at=timezone.now())) == []


@pytest.mark.parametrize(
    ("status", "offers"), [("failed", ["retry", "rerun", "restart"]), ("succeeded", ["rerun", "restart"])]
)
def test_an_ended_run_can_be_gone_on_from(status: str, offers: list[str]) -> None:
    assert offers_of(ended(status)) == offers


def test_a_run_that_is_retried_already_is_not_offered_to_be() -> None:
    run = ended()
    make_run(continues=run)
    assert offers_of(run) == ["rerun", "restart"]


def test_a_part_of_another_run_cannot_be_gone_on_from_by_itself() -> None:
    child = ended()
    Run.objects.filter(pk=child.pk).update(parent=make_step(make_run()))
    child.refresh_from_db()
    assert offers_of(child) == []


def test_the_page_of_a_viewer_offers_nothing(browse: Browser, viewer: User) -> None:
    run = ended()
    pages = [text_of(browse(viewer), path) for path in (f"/runs/{run.pk}/", f"/runs/{run.pk}/actions/")]
    assert [verb for page in pages for verb in re.findall(r'id="verb-(\w+)"', page)] == []


def test_the_page_of_an_operator_offers_what_makes_sense(browse: Browser, operator: User) -> None:
    run = ended()
    page = text_of(browse(operator), f"/runs/{run.pk}/")
    assert re.findall(r'id="verb-(\w+)"', page) == ["retry", "rerun", "restart"]


# --- What they do -----------------------------------------------------------------------------------------------------
def test_a_run_is_paused_and_resumed_in_the_persons_name(browse: Browser, operator: User) -> None:
    run = make_run(operator)
    for verb in ("pause", "resume"):
        browse(operator).post(f"/runs/{run.pk}/{verb}/")
    intents = run.intents.values_list("verb", "by__username")
    assert list(intents) == [("pause", "olga"), ("resume", "olga")]


def test_a_refusal_is_told_on_the_page(browse: Browser, operator: User) -> None:
    run = work(begin(step("A")))
    page = browse(operator).post(f"/runs/{run.pk}/retry/", follow=True).content.decode()
    assert "has succeeded: run it again from one of its steps" in page


def test_a_retry_shows_the_new_run_and_each_names_the_other(browse: Browser, operator: User) -> None:
    old = work(begin(step("A"), step("B", played(finished=failed()))))
    page = browse(operator).post(f"/runs/{old.pk}/retry/", follow=True).content.decode()
    new = Run.objects.get(continues=old)
    assert f'Continues <a href="/runs/{old.pk}/">' in page
    assert f'reused from <a href="/runs/{old.pk}/">' in page
    assert f'Continued by <a href="/runs/{new.pk}/">' in text_of(browse(operator), f"/runs/{old.pk}/")


def test_a_run_is_run_again_from_a_step_that_ran(browse: Browser, operator: User) -> None:
    old = work(begin(step("A"), step("B"), step("C", played(finished=failed()))))
    page = text_of(browse(operator), f"/runs/{old.pk}/rerun/")
    assert re.findall(r'<option value="([^"]*)"', page) == ["A:", "B:", "C:"]
    browse(operator).post(f"/runs/{old.pk}/rerun/", {"start_at": "B:", "nonce": "n"})
    assert list(Run.objects.get(continues=old).step_runs.values_list("step", flat=True)) == ["A"]


def test_pressing_run_again_twice_makes_one_run(browse: Browser, operator: User) -> None:
    old = work(begin(step("A")))
    answers = [browse(operator).post(f"/runs/{old.pk}/rerun/", {"start_at": "A:", "nonce": "n"}) for _ in range(2)]
    assert {answer.headers["Location"] for answer in answers} == {f"/runs/{Run.objects.get(continues=old).pk}/"}


def test_a_step_that_never_ran_cannot_be_chosen(browse: Browser, operator: User) -> None:
    old = work(begin(step("A", played(finished=failed())), step("B")))
    answer = browse(operator).post(f"/runs/{old.pk}/rerun/", {"start_at": "B:", "nonce": "n"})
    assert (answer.status_code, Run.objects.count()) == (400, 1)


INPUTS = {
    "topic": {"type": "text", "default": "lamps"},
    "depth": {"type": "integer", "required": False},
    "files": {"type": "list", "default": ["a"]},
    "mode": {"type": "json", "choices": ['"fast"', {"slow": True}], "default": '"fast"'},
}


def test_a_restart_begins_with_the_inputs_of_the_run(browse: Browser, operator: User) -> None:
    old = work(begin(step("A"), inputs=INPUTS))
    page = text_of(browse(operator), f"/runs/{old.pk}/restart/")
    assert re.search(r"<textarea[^>]*>\s*lamps</textarea>", page)
    assert re.search(r"<textarea[^>]*>\s*\[&quot;a&quot;\]</textarea>", page)
    assert '<option value="&quot;fast&quot;" selected>' in page


def test_what_the_form_of_a_restart_shows_can_be_sent_as_it_is(browse: Browser, operator: User) -> None:
    old = work(begin(step("A"), inputs=INPUTS))
    page = text_of(browse(operator), f"/runs/{old.pk}/restart/")
    data = {"nonce": "n", "input-topic": "lamps", "input-depth": "", "input-files": '["a"]', "input-mode": '"fast"'}
    assert set(re.findall(r'name="(input-[^"]*)"', page)) == data.keys() - {"nonce"}
    browse(operator).post(f"/runs/{old.pk}/restart/", data)
    assert Run.objects.get(continues=old).inputs == old.inputs


def test_a_restart_takes_what_was_changed_and_emptied(browse: Browser, operator: User) -> None:
    old = work(begin(step("A"), inputs=INPUTS))
    data = {"nonce": "n", "input-topic": "", "input-depth": "3", "input-files": "[]", "input-mode": '{"slow": true}'}
    browse(operator).post(f"/runs/{old.pk}/restart/", data)
    wanted = {"topic": "", "depth": 3, "files": [], "mode": {"slow": True}}
    assert Run.objects.get(continues=old).inputs == wanted


def test_a_restart_may_name_another_model(browse: Browser, operator: User, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DJINN_PROVIDERS_WITH_KEYS", "openai")
    old = work(begin(step("A")))
    assert 'name="model"' in text_of(browse(operator), f"/runs/{old.pk}/restart/")
    browse(operator).post(f"/runs/{old.pk}/restart/", {"nonce": "n", "model": "openai/gpt-5"})
    assert Run.objects.get(continues=old).model == "openai/gpt-5"


def test_a_wrong_input_of_a_restart_is_told_at_its_field(browse: Browser, operator: User) -> None:
    old = work(begin(step("A"), inputs=INPUTS))
    data = {"nonce": "n", "input-topic": "", "input-files": "no list", "input-mode": '"fast"'}
    answer = browse(operator).post(f"/runs/{old.pk}/restart/", data)
    assert (answer.status_code, 'id="id_input-files_error"' in answer.content.decode()) == (400, True)


@pytest.mark.parametrize(("whom", "column"), [("step:WRITE", "step"), ("agent:writer", "agent")])
def test_context_is_added_for_a_step_or_an_agent(browse: Browser, operator: User, whom: str, column: str) -> None:
    write = Step(id="WRITE", kind="agent", agent="writer", input="Write.")
    pipeline = Pipeline("work", "Work", "1", "", (), WorkspaceSource(), (write,))
    run = make_run(agents=AGENTS, definition=to_snapshot(pipeline))
    browse(operator).post(f"/runs/{run.pk}/note/", {"whom": whom, "text": "Mind\r\nthe gap."})
    assert list(Note.objects.values_list(column, "text", "created_by__username")) == [
        (whom.partition(":")[2], "Mind\nthe gap.", "olga")
    ]


def test_context_for_a_run_that_has_ended_is_refused_with_a_reason(browse: Browser, operator: User) -> None:
    run = make_run(agents=AGENTS, definition=DEFINITION)
    end_step(make_step(run))
    end_run(run)
    answer = browse(operator).post(f"/runs/{run.pk}/note/", {"whom": "agent:writer", "text": "Hello"})
    assert (answer.status_code, "has ended already" in answer.content.decode()) == (400, True)


# --- Many at once -----------------------------------------------------------------------------------------------------
def test_the_chosen_runs_are_cancelled_and_each_refusal_is_told(browse: Browser, operator: User) -> None:
    one, two, over = make_run(), make_run(), ended()
    data = {"verb": "cancel", "run": [one.pk, over.pk], "back_to": "pipeline=review&older=<x>"}
    answer = browse(operator).post("/runs/bulk/", data, follow=True)
    page = answer.content.decode()
    assert answer.redirect_chain == [("/?pipeline=review", 302)]
    assert (f"Cancel requested: #{one.pk}." in page, f"#{over.pk}: Run {over.pk} has ended already" in page) == (
        True,
        True,
    )
    assert list(Run.objects.filter(cancel_requested_at__isnull=False)) == [one]
    assert two.status == "queued"


def test_the_chosen_runs_are_retried(browse: Browser, operator: User) -> None:
    old = work(begin(step("A", played(finished=failed()))))
    page = browse(operator).post("/runs/bulk/", {"verb": "retry", "run": [old.pk]}, follow=True).content.decode()
    assert f"Retried: #{old.pk} as #{Run.objects.get(continues=old).pk}." in page


@pytest.mark.parametrize(
    "data", [{}, {"verb": "cancel"}, {"verb": "burn", "run": ["1"]}, {"verb": "cancel", "run": "x"}]
)
def test_a_choice_that_is_none_does_nothing(browse: Browser, operator: User, data: dict[str, Any]) -> None:
    page = browse(operator).post("/runs/bulk/", data, follow=True).content.decode()
    assert "Nothing was done: choose the runs first." in page


def test_only_operators_can_choose_runs(browse: Browser, operator: User, viewer: User) -> None:
    make_run()
    assert ['name="run"' in text_of(browse(user), "/") for user in (operator, viewer)] == [True, False]


# --- Steps, reasons, files --------------------------------------------------------------------------------------------
def test_a_thousand_items_are_one_line_and_a_page_of_their_own(browse: Browser, viewer: User) -> None:
    run = begin(
        step("LIST", played(finished=succeeded(L=list(range(40)))), outputs=["L"]),
        step("EACH", needs=["LIST"], foreach={"over": "L", "parallel": 40}, outputs=["R"]),
    )
    work(run)
    steps = text_of(browse(viewer), f"/runs/{run.pk}/").partition('id="steps"')[2].partition('id="log"')[0]
    assert (steps.count("<tr"), "40 succeeded" in steps) == (3, True)
    items = text_of(browse(viewer), f"/runs/{run.pk}/items/?step=EACH")
    assert re.findall(r">EACH\[(\d+)\]<", items) == [str(number) for number in range(40)]


def test_items_that_failed_are_listed_beside_the_line(browse: Browser, viewer: User) -> None:
    run = make_run()
    for number in range(12):
        row = make_step(run, "EACH", item=str(number), item_value=f"<b>{number}")
        end_step(row, "failed" if number == 7 else "succeeded", reason="error" if number == 7 else "")
    steps = text_of(browse(viewer), f"/runs/{run.pk}/").partition('id="steps"')[2].partition('id="log"')[0]
    assert re.findall(r">EACH\[(\d+)\]<", steps) == ["7"]
    assert "&lt;b&gt;7" in steps


def test_the_page_tells_why_a_run_does_not_go_on_and_what_would_let_it(browse: Browser, viewer: User) -> None:
    run = work(begin({"id": "GATE", "approve": {}, "input": "Go?"}, step("AFTER")))
    held = text_of(browse(viewer), f"/runs/{run.pk}/").partition('id="held"')[2].partition("</section>")[0]
    assert ("Waiting for" in held, "waiting for 1 approval by operator" in held) == (True, True)
    assert ("AFTER" in held, "the people who may decide, decide" in held) == (True, True)


def test_a_child_and_its_parent_name_each_other(browse: Browser, viewer: User) -> None:
    parent = make_run()
    row = make_step(parent, "USE")
    child = make_run(parent=row)
    assert f'href="/runs/{child.pk}/"' in text_of(browse(viewer), f"/runs/{parent.pk}/").partition('id="steps"')[2]
    assert f'A part of <a href="/runs/{parent.pk}/">' in text_of(browse(viewer), f"/runs/{child.pk}/")


def test_a_kept_file_is_downloaded_and_never_shown(browse: Browser, viewer: User, home: Any) -> None:
    run = make_run()
    row = make_step(run)
    execution = Execution.objects.get(step_run=row)
    kept = Artifact.objects.create(execution=execution, path="out/<b>.html", size=9, digest="a" * 64)
    Path(home.artifacts).mkdir(parents=True, exist_ok=True)
    (home.artifacts / kept.digest).write_text("<script>x")
    client = browse(viewer)
    assert "out/&lt;b&gt;.html" in text_of(client, f"/runs/{run.pk}/")
    answer = client.get(f"/runs/{run.pk}/artifacts/{kept.pk}/")
    assert b"".join(answer.streaming_content) == b"<script>x"  # type: ignore[attr-defined]
    assert answer.headers["Content-Disposition"].startswith("attachment")
    assert (answer.headers["X-Content-Type-Options"], answer.headers["Content-Type"]) == (
        "nosniff",
        "application/octet-stream",
    )
