"""A run's page in Chromium, served by a real web process on the test's database."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from djinn.accounts.models import User
from djinn.events.log import last_seq
from djinn.runs.models import Run
from tests.dashboard.chromium import WebProcess, open_run, photograph
from tests.dashboard.make import end_run, end_step, make_call, make_run, make_step, tell

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True)]

TEXT_OF_THE_PAGE = """() => ['run-status', 'run-calls', 'run-figures', 'run-actions', 'steps', 'log', 'results',
    'held', 'files', 'run-approvals']
    .map((id) => document.getElementById(id).textContent.trim().replace(/[ \\n]+/g, ' '))"""


def wait_for_newest(page: Page, run: Run) -> None:
    """Until the page has the newest event."""
    page.wait_for_function(
        "(seq) => document.getElementById('cursor').dataset.seq === seq", arg=str(last_seq(run.stream))
    )


def work(run: Run, step_name: str, *, visit: int = 1) -> None:
    """A step that does a bit of everything."""
    step = make_step(run, step_name, visit=visit, because="the step before it went there")
    tell(
        step, ("ready", {"python": "3.12.1", "mode": "agent"}), ("thinking", {"text": "First I look at what is there."})
    )
    tell(step, ("text", {"text": "I will read the notes"}))
    tell(step, ("text", {"text": " and mend them.\n\n  - one\n"}))
    tell(step, ("text", {"text": "  - two & <b>three</b>"}))
    tell(step, ("message", {"text": "I will read the notes and mend them.\n\n  - one\n  - two & <b>three</b>"}))
    tell(step, ("tool_call", {"id": "1", "name": "bash", "arguments": {"command": "cat notes.txt"}}))
    tell(
        step,
        ("output", {"text": "\nold line\n", "stream": "stdout"}),
        ("output", {"text": "kept\n", "stream": "stdout"}),
    )
    tell(step, ("output", {"text": "cat: other: No such file\r\n", "stream": "stderr"}))
    tell(step, ("tool_result", {"id": "1", "name": "bash", "text": "old line", "is_error": False, "seconds": 0.012}))
    tell(
        step,
        ("tool_result", {"id": "2", "name": "edit", "text": "Error: no match", "is_error": True, "seconds": 0.001}),
    )
    tell(step, ("file_changed", {"path": "notes.txt", "change": "modified", "added": 1, "removed": 1}))
    tell(step, ("usage", {"input_tokens": 1200, "output_tokens": 80, "cached_tokens": 600}))
    tell(step, ("log", {"level": "warning", "message": "the model was slow"}), ("weather", {"sky": "blue"}))
    tell(step, ("finished", {"status": "succeeded", "summary": "Mended.", "error": None}))
    make_call(step)
    end_step(step, outputs={"verdict": "approved", "files": ["notes.txt"]}, summary="Mended the notes.")


def test_a_run_appears_live_as_it_is_shown_after_a_reload(
    web: WebProcess, chromium: Browser, operator: User, tmp_path: Path
) -> None:
    run = make_run(operator, inputs={"topic": "the notes", "depth": 2})
    page, complaints = open_run(chromium, web, run)
    work(run, "write")
    wait_for_newest(page, run)
    work(run, "review")
    end_run(run, "failed", reason="visits", message="step review was visited 10 times")
    wait_for_newest(page, run)
    expect(page.locator("#verb-restart")).to_be_visible()
    live = page.evaluate(TEXT_OF_THE_PAGE)
    sections = page.eval_on_selector_all("#log section", "all => all.map((section) => section.id)")
    photograph(page, tmp_path, "run")
    page.reload()
    page.wait_for_selector("#connection[data-state=live]")
    assert live == page.evaluate(TEXT_OF_THE_PAGE)
    assert sections == [f"step-run-{pk}" for pk in run.step_runs.order_by("number").values_list("pk", flat=True)]
    assert live[5].count("I will read the notes and mend them.") == 2
    assert complaints == []


def test_a_page_outlives_its_web_process_without_doubling_or_missing_a_line(
    web: WebProcess, chromium: Browser, operator: User
) -> None:
    run = make_run(operator)
    step = make_step(run)
    page, _ = open_run(chromium, web, run)
    numbers = iter(range(10_000))
    for _ in range(2):
        tell(step, *[("text", {"text": f"[{next(numbers)}]"}) for _ in range(300)])
        web.stop()
        page.wait_for_selector("#connection:not([data-state=live])")
        tell(step, *[("text", {"text": f"[{next(numbers)}]"}) for _ in range(300)])
        web.start()
        page.wait_for_selector("#connection[data-state=live]")
    wait_for_newest(page, run)
    text = page.inner_text(f"#log-{step.pk}")
    assert [int(number) for number in re.findall(r"\[(\d+)\]", text)] == list(range(next(numbers)))


def test_the_reader_is_taken_along_only_from_the_end(web: WebProcess, chromium: Browser, operator: User) -> None:
    run = make_run(operator)
    step = make_step(run)
    page, _ = open_run(chromium, web, run)
    tell(step, ("text", {"text": "line\n" * 200}))
    wait_for_newest(page, run)
    followed = page.evaluate("scrollY")
    page.evaluate("scrollTo(0, 0)")
    tell(step, ("text", {"text": "line\n" * 200}))
    wait_for_newest(page, run)
    assert (followed > 0, page.evaluate("scrollY")) == (True, 0)


@pytest.mark.parametrize("has_scripts", [True, False])
def test_cancelling_works_with_and_without_scripts(
    web: WebProcess, chromium: Browser, operator: User, has_scripts: bool
) -> None:
    run = make_run(operator)
    page, complaints = open_run(chromium, web, run, has_scripts=has_scripts)
    page.click("text=Cancel run…")
    page.click(f"text=Yes, cancel run #{run.pk}")
    page.wait_for_selector("#run-status >> text=cancel requested by olga")
    assert complaints == []


def test_pages_fit_narrow_and_wide_screens(web: WebProcess, chromium: Browser, operator: User, tmp_path: Path) -> None:
    run = make_run(operator, pipeline="a-pipeline-with-quite-a-long-name")
    work(run, "write")
    page, complaints = open_run(chromium, web, run)
    for name, path in [
        ("runs", "/"),
        ("start", "/start/"),
        ("lost", "/nowhere/"),
        ("refused", "/runs/1000000/"),
        ("run", f"/runs/{run.pk}/"),
    ]:
        page.goto(web.url + path)
        photograph(page, tmp_path, name)
    assert [text for text in complaints if "404" not in text] == []
