"""What people do in Chromium: deciding by keyboard, steering live, and hostile text that stays text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from djinn.accounts.models import User
from djinn.executions.models import Artifact, Execution
from djinn.runs.approvals import decide
from djinn.runs.models import Approval, Run
from djinn.runs.schedules import Wanted, create_schedule
from djinn.runs.steering import pause_run
from tests.dashboard.chromium import WebProcess, open_run, photograph
from tests.dashboard.make import end_run, end_step, make_approval, make_run, make_step, tell
from tests.make import begin, failed, make_user, played, step, succeeded, work

pytestmark = [
    pytest.mark.browser,
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("home"),
    pytest.mark.xdist_group("browser"),
]

EVIL = "</textarea></p><script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
BUILD = step("BUILD", played(finished=succeeded(RESULT="good")), outputs=["RESULT"])


def gate(**approve: Any) -> dict[str, Any]:
    return {"id": "GATE", "approve": {"show": ["diff", "RESULT"], **approve}, "input": "Ship {{ RESULT }}?"}


def press_tab_to(page: Page, wanted: str) -> None:
    """Go to the element of that id as somebody without a mouse does."""
    for _ in range(100):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == wanted:
            return
    raise AssertionError(f"the keyboard never comes to {wanted}")


def test_a_question_that_comes_up_live_is_approved_by_keyboard_and_the_run_goes_on_live(
    web: WebProcess, chromium: Browser, operator: User
) -> None:
    run = begin(BUILD, gate(), step("DEPLOY"))
    Run.objects.update(created_by=operator)
    page, complaints = open_run(chromium, web, run)
    work(run)
    approval = Approval.objects.get()
    expect(page.locator(f"#approve-{approval.pk}")).to_be_visible(timeout=20_000)
    press_tab_to(page, f"comment-{approval.pk}")
    page.keyboard.type("I have looked.")
    press_tab_to(page, f"approve-{approval.pk}")
    page.keyboard.press("Enter")
    expect(page.locator("main .banner").first).to_contain_text("Approved.")
    page.wait_for_selector("#connection[data-state=live]")
    work(run)
    expect(page.locator("#run-status .status")).to_have_text("Succeeded", timeout=20_000)
    expect(page.locator("#steps")).to_contain_text("DEPLOY")
    expect(page.locator("#verb-rerun")).to_be_visible()
    assert (approval.decisions.get().comment, complaints) == ("I have looked.", [])


def test_a_comment_that_is_being_written_outlives_somebody_elses_decision(
    web: WebProcess, chromium: Browser, operator: User
) -> None:
    run = begin(BUILD, gate(count=2))
    work(run)
    approval = Approval.objects.get()
    page, complaints = open_run(chromium, web, run)
    page.fill(f"#comment-{approval.pk}", "I am still writing")
    decide_as_another(approval)
    expect(page.locator("#run-approvals")).to_contain_text("1 approval needed", timeout=20_000)
    assert page.input_value(f"#comment-{approval.pk}") == "I am still writing"
    assert complaints == []


def decide_as_another(approval: Approval) -> None:
    decide(user=make_user("oscar"), approval_id=approval.pk, verdict="approve", digest=approval.digest)


def test_the_verbs_follow_the_run_live(web: WebProcess, chromium: Browser, operator: User) -> None:
    run = begin(BUILD, gate())
    page, complaints = open_run(chromium, web, run)
    expect(page.locator("#verb-pause")).to_be_visible()
    pause_run(run=run, user=operator)
    work(run)
    expect(page.locator("#verb-resume")).to_be_visible(timeout=20_000)
    expect(page.locator("#held")).to_contain_text("somebody resumes the run")
    page.click("#verb-resume")
    expect(page.locator("#verb-pause")).to_be_visible()
    assert complaints == []


def test_a_step_that_is_skipped_or_cannot_begin_appears_live(
    web: WebProcess, chromium: Browser, operator: User
) -> None:
    run = begin(
        step("A", played(finished=failed())),
        step("B", needs=["A"]),
        step("SAY", outputs=["V"]),
        step("C", needs=["SAY"], when="V > 3"),
        step("D", needs=["C"]),
    )
    page, complaints = open_run(chromium, web, run)
    work(run)
    expect(page.locator("#run-status .status")).to_have_text("Failed", timeout=20_000)
    live = page.locator("#log").inner_text()
    page.reload()
    page.wait_for_selector("#connection[data-state=live]")
    assert live == page.locator("#log").inner_text()
    statuses = [tuple(row) for row in run.step_runs.order_by("step").values_list("step", "status")]
    assert statuses == [
        ("A", "failed"), ("B", "skipped"), ("C", "failed"), ("D", "skipped"), ("SAY", "succeeded"),
    ]  # fmt: skip
    assert complaints == []


def test_hostile_text_runs_nowhere(web: WebProcess, chromium: Browser, operator: User) -> None:
    run = make_run(operator)
    page, complaints = open_run(chromium, web, run)
    row = make_step(run, "EACH", item="0", item_value=EVIL)
    tell(
        row,
        ("approval_asked", {"question": EVIL, "by": [EVIL], "count": 1}),
        ("notified", {"agent": EVIL, "text": EVIL}),
    )
    shown = {"outputs": {EVIL: EVIL}, "diff": f"# {EVIL}\ndiff --git a/{EVIL} b/{EVIL}\n@@ -0,0 +1 @@\n+{EVIL}\n"}
    make_approval(run, by=["operator", EVIL], question=EVIL, shown=shown)
    end_step(row, "failed", reason="error", message=EVIL, outputs={EVIL: EVIL}, summary=EVIL)
    expect(page.locator("#run-approvals .asks")).to_contain_text("<script>", timeout=20_000)
    for path in (f"/runs/{run.pk}/", "/approvals/"):
        page.goto(web.url + path)
        expect(page.locator("main")).to_contain_text("<script>")
    assert page.locator("img").count() == 0
    assert "owned" not in page.title()
    assert complaints == []


def test_the_new_pages_fit_narrow_and_wide_screens(
    web: WebProcess, chromium: Browser, operator: User, tmp_path: Path
) -> None:
    paths = {**waiting_run(), **looping_run(), **failed_graph(), **schedules_of(operator)}
    paths |= {"approvals": "/approvals/", "runs": "/", "workers": "/workers/"}
    page, complaints = open_run(chromium, web, Run.objects.earliest("pk"))
    for name, path in paths.items():
        page.goto(web.url + path)
        photograph(page, tmp_path, name)
    assert complaints == []


def waiting_run() -> dict[str, str]:
    run = begin(BUILD, gate(count=2, by=["operator", "ada"], expires="2d"), step("DEPLOY"))
    work(run)
    make_approval(make_run(), by=["ada"])
    diff = make_approval(make_run(), by=["operator"], question="Shall the change go out?\n\nIt touches the notes only.")
    return {"waiting": f"/runs/{run.pk}/", "question": f"/approvals/{diff.pk}/", "rerun": f"/runs/{run.pk}/rerun/"}


def looping_run() -> dict[str, str]:
    run = make_run(inputs={"topic": "lamps"})
    kept = make_step(run, "PLAN")
    Artifact.objects.create(
        execution=Execution.objects.get(step_run=kept), path="a/plan.md", size=1234, digest="a" * 64
    )
    end_step(kept, outputs={"TASKS": ["one", "two"]})
    for number in range(30):
        row = make_step(run, "IMPLEMENT", item=str(number), item_value={"title": f"Task number {number}"})
        if number < 27:
            end_step(row, "failed" if number in (3, 9) else "succeeded", reason="error" if number in (3, 9) else "")
    return {
        "loop": f"/runs/{run.pk}/",
        "items": f"/runs/{run.pk}/items/?step=IMPLEMENT",
        "note": f"/runs/{run.pk}/note/",
    }


def failed_graph() -> dict[str, str]:
    run = begin(
        step("LINT"),
        step("TEST", played(finished=failed("error", "3 tests failed"))),
        step("SHIP", needs=["LINT", "TEST"]),
        inputs={"files": {"type": "list", "default": ["a.py", "b.py"]}},
    )
    work(run)
    return {"failed": f"/runs/{run.pk}/"}


def schedules_of(user: User) -> dict[str, str]:
    schedule = create_schedule(user=user, wanted=Wanted("daily check", "work", "0 6 * * 1-5", {}, "Europe/Berlin"))
    create_schedule(user=user, wanted=Wanted("weekly", "work", "0 6 * * 1", {}, is_enabled=False))
    end_run(make_run(schedule=schedule), "failed", reason="error")
    type(schedule).objects.update(last_message="skipped: run 7 of this schedule has not ended")
    return {"schedules": "/schedules/", "schedule-choose": "/schedules/new/"}
