"""A run in a terminal: which lines each event gives."""

from __future__ import annotations

import io
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from django.conf import settings
from rich.console import Console

from djinn.events.log import LoggedEvent
from djinn.runs.lines import Lines
from djinn.runs.models import Approval, Run
from djinn.runs.selectors import run_view
from djinn.runs.states import RunStatus, StepStatus
from djinn.runs.terminal import follow, has_succeeded, print_result
from tests.make import begin, failed, played, step, work, write_pipeline

STEP = {"step_run": 1, "step": "FIX", "visit": 2, "attempt": 1}


def event(kind: str, **data: Any) -> LoggedEvent:
    return LoggedEvent(1, kind, {**STEP, **data}, datetime(2026, 1, 1, tzinfo=UTC), None)


def shown(*events: LoggedEvent) -> list[str]:
    """The lines of these events as plain text, the held back one too."""
    lines, console = Lines(), Console(file=io.StringIO(), width=100, color_system=None)
    for each in events:
        for line in lines.of(each):
            console.print(line, soft_wrap=True)
    for line in lines.flush():
        console.print(line, soft_wrap=True)
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined, no-any-return]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (event("step_finished", status="succeeded", outputs={"A": "1"}), ["✔ FIX succeeded", "    A = 1"]),
        (
            event("step_finished", status="failed", reason="error", message="[red]x[/]"),
            ["✘ FIX failed (error): [red]x[/]"],
        ),
        (event("step_adopted", lease=2), ["FIX: another worker took over; the container went on"]),
        (event("message", text="whole"), ["  whole"]),
        (event("message", text=""), []),
        (event("tool_call", name="bash", arguments={"command": "ls [a]"}), ["  → bash ls [a]"]),
        (event("tool_call", name="edit", arguments={"a": 1, "b": 2}), ['  → edit {"a": 1, "b": 2}']),
        (event("tool_result", name="read", text="one\ntwo"), ["    one", "    two"]),
        (event("tool_result", name="bash", text="shown as output already"), []),
        (event("tool_result", name="bash", text="exit 1", is_error=True), ["    exit 1"]),
        (event("file_changed", path="a.py", added=2, removed=1), ["  ✎ a.py +2 -1"]),
        (event("notice", text="careful"), ["  ! careful"]),
        (
            event("approval_asked", question="Ship [it]?\nNow?", by=["operator", "ada"]),
            ["? FIX waits for approval by operator or ada", "    Ship [it]?", "    Now?"],
        ),
        (event("approval_decided", verdict="approve", by="ada", comment=""), ["FIX: approved by ada"]),
        (event("approval_decided", verdict="reject", by="ada", comment="no"), ["FIX: rejected by ada: no"]),
        (event("approval_expired"), ["FIX: nobody decided in time"]),
        (event("cancel_requested", by="olga"), ["cancel requested by olga"]),
        (event("run_finished", status="failed", message="why"), ["run failed: why"]),
        (event("usage", input_tokens=1), []),
        (event("something_new"), []),
    ],
)
def test_an_event_is_shown_as(given: LoggedEvent, expected: list[str]) -> None:
    assert [line.rstrip() for line in shown(given)] == expected


def test_text_in_pieces_is_shown_in_whole_lines() -> None:
    assert shown(*(event("text", text=piece) for piece in ("one", " line\nan", "other"))) == ["  one line", "  another"]


def test_a_message_that_was_shown_in_pieces_is_not_shown_again() -> None:
    assert shown(event("text", text="hello"), event("message", text="hello")) == ["  hello"]


def retry(attempt: int, failure: str = "rate limited (429)", seconds: float = 2.0) -> LoggedEvent:
    told = {"attempt": attempt, "failure": failure, "next_seconds": seconds}
    return event("log", level="warning", text="the call failed", retry=told)


def test_a_call_that_fails_again_and_again_is_one_line_until_it_fails_otherwise() -> None:
    away = "connection refused"
    assert shown(retry(1), retry(2), retry(3), retry(4, away), retry(5, away)) == [
        "  ! Call failed: rate limited (429); retrying in 2 s (attempt 1)",
        "  ! Call failed: connection refused; retrying in 2 s (attempt 4)",
    ]


def test_how_a_failing_call_stands_is_kept_until_it_goes_through() -> None:
    lines = Lines()
    for each in (retry(1), retry(7)):
        list(lines.of(each))
    assert list(lines.calls.values()) == ["FIX: Call failed: rate limited (429); retrying in 2 s (attempt 7)"]
    list(lines.of(event("log", level="info", text="it went through", retry=None)))
    assert not lines.calls


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({}, ["  ! Call failed: no reason given; retrying"]),
        ({"attempt": -1, "failure": [1], "next_seconds": float("nan")}, ["  ! Call failed: [1]; retrying"]),
        ({"attempt": True, "failure": "a\n\x1b]0;b", "next_seconds": "2"}, ["  ! Call failed: a \ufffd]0;b; retrying"]),
        ("text", []),
        ([1], []),
    ],
)  # fmt: skip
def test_a_retry_of_the_wrong_shape_is_shown_as_far_as_it_goes(value: Any, expected: list[str]) -> None:
    assert shown(event("log", level="warning", text="x", retry=value)) == expected


def test_text_and_thinking_are_not_mixed_in_one_line() -> None:
    assert shown(event("thinking", text="hm"), event("text", text="yes")) == ["  hm", "  yes"]


def test_a_long_result_is_cut_and_says_so() -> None:
    lines = shown(event("tool_result", name="read", text="\n".join(map(str, range(100)))))
    assert (len(lines), lines[-1].strip()) == (13, "… 88 more lines")


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(("script", "status"), [("exit 0", "succeeded"), (played(finished=failed()), "failed")])
def test_following_ends_with_the_run_and_shows_what_came_of_it(script: str, status: str) -> None:
    run = work(begin(step("A", script)))
    console = Console(file=io.StringIO(), width=100, color_system=None)
    view = follow(run, console)
    print_result(view, console, url="http://here")
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert f"run {status}" in text
    assert f"http://here/runs/{run.pk}/" in text
    assert has_succeeded(view) is (status == "succeeded")


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("home")
def test_a_run_of_markup_is_shown_as_it_is() -> None:
    run = work(begin(step("A", played(finished=failed(message="[/] [bold]no markup[/bold] [")))))
    console = Console(file=io.StringIO(), width=100, color_system=None)
    print_result(run_view(run), console, url="http://here")
    assert "[bold]no markup[/bold]" in console.file.getvalue()  # type: ignore[attr-defined]


GATE = {"id": "GATE", "approve": {}, "input": "Ship [it]?"}


def until(console: Console, text: str) -> Callable[[], None]:
    """Stop the showing, as Ctrl-C does, once it says so."""

    def look() -> None:
        if text in console.file.getvalue():  # type: ignore[attr-defined]
            raise KeyboardInterrupt

    return look


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("home")
def test_following_says_what_waits_for_whom_where_and_the_command() -> None:
    run = work(begin(step("A"), GATE))
    console = Console(file=io.StringIO(), width=100, color_system=None)
    with pytest.raises(KeyboardInterrupt):
        follow(run, console, meanwhile=until(console, "answer:"))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    approval = Approval.objects.get()
    assert "? GATE waits for approval by operator" in text
    assert "Ship [it]?" in text
    assert f"{settings.BASE_URL}/approvals/{approval.pk}/" in text
    assert f"manage.py approvals approve {approval.pk}" in text
    assert text.count("answer:") == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("home")
def test_following_says_what_waits_in_a_pipeline_that_the_run_uses() -> None:
    write_pipeline(GATE, name="inner")
    run = work(begin({"id": "USE", "uses": "inner"}))
    child = Run.objects.get(parent__run=run)
    work(child)
    console = Console(file=io.StringIO(), width=100, color_system=None)
    with pytest.raises(KeyboardInterrupt):
        follow(run, console, meanwhile=until(console, "answer:"))
    assert f"Waiting for approval: GATE of run {child.pk}" in console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("home")
def test_a_run_of_any_status_can_be_shown() -> None:
    run = work(begin(step("A"), GATE, {"id": "B", "run": "exit 0", "when": "false"}))
    console = Console(file=io.StringIO(), width=100, color_system=None)
    for status in StepStatus.values:
        view = run_view(run)
        view.steps[0].row.status = status
        print_result(view, console, url="http://here")
    for status in RunStatus.values:
        run.status = status
        print_result(run_view(run), console, url="http://here")
    assert "Paused" in console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.django_db(transaction=True)
@pytest.mark.usefixtures("home")
def test_a_failed_run_names_the_command_that_prints_the_log() -> None:
    run = work(begin(step("A", played(finished=failed(message="exit code 3: boom")))))
    console = Console(file=io.StringIO(), width=100, color_system=None)
    print_result(run_view(run), console, url="http://here")
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert f"manage.py runs logs {run.pk} --step A" in text
    assert "step A failed: exit code 3: boom" in text


ATTACK = "\x1b]0;title\x07\x1b[2J\x9b1A\r"


@pytest.mark.parametrize(
    "given",
    [
        event("text", text=ATTACK),
        event("output", text=ATTACK),
        event("message", text=ATTACK),
        event("tool_call", name=ATTACK, arguments={"command": ATTACK}),
        event("tool_result", name="read", text=ATTACK),
        event("file_changed", path=ATTACK),
        event("notice", text=ATTACK),
        event("step_finished", status="failed", reason="error", message=ATTACK, outputs={ATTACK: ATTACK}),
        event("run_finished", status="failed", message=ATTACK),
    ],
    ids=lambda given: given.type,
)
def test_what_agents_write_cannot_command_the_terminal(given: LoggedEvent) -> None:
    assert not set("".join(shown(given))) & set("\x1b\x07\x9b\r")


def test_colours_of_commands_are_left_out_without_a_trace() -> None:
    assert shown(event("output", text="\x1b[1;31mred\x1b[0m")) == ["  red"]
