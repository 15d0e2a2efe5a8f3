"""`manage.py runs list`, `show`, `logs` and `follow`: coming back to a run."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Any

import pytest
from django.conf import settings
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection

from djinn.core.installation.paths import PROJECT
from djinn.events.log import NewEvent
from djinn.runs.models import Approval, Run, StepRun
from tests.make import begin, failed, played, step, tell, work

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("home")]

GATE: dict[str, Any] = {"id": "GATE", "approve": {}, "input": "Ship it?"}
BROKEN = step("TEST", played(finished=failed(message="exit code 3: boom")))


def printed(capsys: Any, *arguments: str) -> str:
    """What the command prints."""
    call_command("runs", *arguments)
    return str(capsys.readouterr().out)


def output(run: Run, text: str, *, name: str = "A", item: str = "") -> None:
    """The step writes."""
    row = StepRun.objects.filter(run=run, step=name).first()
    tell(run.stream, NewEvent("output", {"text": text, "step": name, "item": item, "step_run": row.pk if row else 0}))


# --- list -------------------------------------------------------------------------------------------------------------
def test_the_newest_runs_are_listed_first_with_status_pipeline_and_message(capsys: Any) -> None:
    work(begin(BROKEN))
    begin(step("A"))
    newest, oldest = printed(capsys, "list").splitlines()
    assert "queued" in newest
    assert ("failed" in oldest, "work" in oldest, "exit code 3: boom" in oldest) == (True, True, True)


def test_the_list_is_bounded_and_filtered(capsys: Any) -> None:
    work(begin(BROKEN))
    for _ in range(3):
        begin(step("A"))
    assert len(printed(capsys, "list", "--limit", "2").splitlines()) == 2
    assert len(printed(capsys, "list", "--status", "failed").splitlines()) == 1
    assert printed(capsys, "list", "--pipeline", "other").strip() == "No runs."


@pytest.mark.parametrize("limit", ["0", "-1", "many"])
def test_a_limit_that_is_none_is_refused(limit: str) -> None:
    with pytest.raises(CommandError):
        call_command("runs", "list", "--limit", limit)


# --- show -------------------------------------------------------------------------------------------------------------
def test_a_run_is_shown_with_what_waits_and_how_to_answer(capsys: Any) -> None:
    run = work(begin(step("A"), GATE))
    text = printed(capsys, "show", str(run.pk))
    approval = Approval.objects.get()
    assert ("Waiting" in text, "GATE" in text) == (True, True)
    assert f"manage.py approvals approve {approval.pk}" in text
    assert f"{settings.BASE_URL}/runs/{run.pk}/" in text


def test_a_failed_run_is_shown_with_its_message_and_the_command_for_its_log(capsys: Any) -> None:
    run = work(begin(BROKEN))
    text = printed(capsys, "show", str(run.pk))
    assert "step TEST failed: exit code 3: boom" in text
    assert f"manage.py runs logs {run.pk} --step TEST" in text


# --- logs -------------------------------------------------------------------------------------------------------------
def test_the_log_of_one_step_is_printed(capsys: Any) -> None:
    run = work(begin(step("A"), step("B")))
    output(run, "of a\n", name="A")
    output(run, "of b\n", name="B")
    text = printed(capsys, "logs", str(run.pk), "--step", "B")
    assert ("of b" in text, "of a" in text) == (True, False)


def test_the_log_of_one_item_is_printed(capsys: Any) -> None:
    run = work(begin(step("A", foreach={"over": "[1, 2]"})))
    for item in "01":
        output(run, f"of item {item}\n", item=item)
    text = printed(capsys, "logs", str(run.pk), "--step", "A[1]")
    assert ("of item 1" in text, "of item 0" in text) == (True, False)


def test_a_step_that_is_not_there_is_refused_with_those_that_are() -> None:
    run = work(begin(step("A"), step("B")))
    with pytest.raises(CommandError, match=r"no step 'C' so far. Its steps: A, B"):
        call_command("runs", "logs", str(run.pk), "--step", "C")


@pytest.mark.parametrize(("tail", "first"), [("3", "line 1198"), ("0", "line 1"), (None, "line 201")])
def test_as_many_of_the_last_lines_are_printed_as_are_wanted(capsys: Any, tail: str | None, first: str) -> None:
    run = work(begin(step("A")))
    for start in range(1, 1201, 4):
        output(run, "".join(f"line {number}\n" for number in range(start, start + 4)))
    arguments = [] if tail is None else ["--tail", tail]
    lines = [line.strip() for line in printed(capsys, "logs", str(run.pk), *arguments).splitlines()]
    numbered = [line for line in lines if line.startswith("line ")]
    assert (numbered[0], numbered[-1]) == (first, "line 1200")


def test_a_line_without_its_end_is_printed_and_a_long_one_is_cut(capsys: Any) -> None:
    run = work(begin(step("A")))
    output(run, "x" * 100_000 + "\nno end")
    *_, long, last = printed(capsys, "logs", str(run.pk)).splitlines()
    assert (len(long.strip()), last.strip()) == (4000, "no end")


def test_a_log_cannot_command_the_terminal(capsys: Any) -> None:
    run = work(begin(step("A")))
    output(run, "\x1b]0;title\x07\x1b[2J\x9b1A\rgone [bold]markup[/bold]\n")
    text = printed(capsys, "logs", str(run.pk))
    assert not set(text) & set("\x1b\x07\x9b\r")
    assert "[bold]markup[/bold]" in text


def test_a_followed_log_ends_with_the_run(capsys: Any) -> None:
    run = work(begin(step("A")))
    output(run, "the end")
    assert printed(capsys, "logs", "-f", str(run.pk)).splitlines()[-1].strip() == "the end"


# --- follow -----------------------------------------------------------------------------------------------------------
def test_following_a_run_that_succeeded_ends_well_and_one_that_failed_does_not(capsys: Any) -> None:
    well, ill = work(begin(step("A"))), work(begin(BROKEN))
    assert "Succeeded" in printed(capsys, "follow", str(well.pk))
    with pytest.raises(CommandError, match="failed") as caught:
        call_command("runs", "follow", str(ill.pk))
    assert caught.value.returncode == 1


def test_following_begins_near_the_end_of_a_long_log(capsys: Any) -> None:
    run = work(begin(step("A")))
    for number in range(400):
        output(run, f"line {number}\n")
    text = printed(capsys, "follow", str(run.pk))
    assert ("line 399" in text, "line 1\n" in text) == (True, False)


@pytest.mark.parametrize("verb", ["show", "logs", "follow"])
def test_a_run_that_does_not_exist_is_refused(verb: str) -> None:
    with pytest.raises(CommandError, match="There is no run 999999"):
        call_command("runs", verb, "999999")


@pytest.mark.parametrize("verb", ["follow", "logs -f"])
def test_ctrl_c_stops_the_showing_says_where_the_run_is_and_exits_130(verb: str) -> None:
    run = work(begin(step("A"), GATE))
    url = os.environ["DATABASE_URL"].replace("/djinn?", f"/{connection.settings_dict['NAME']}?")
    with subprocess.Popen(
        [sys.executable, "-u", "manage.py", "runs", *verb.split(), str(run.pk)],
        cwd=PROJECT,
        env={**os.environ, "DATABASE_URL": url},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background ignores it
    ) as process:
        assert process.stdout is not None
        while "waits for approval" not in (line := process.stdout.readline()):
            assert line, process.stderr.read() if process.stderr else ""
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert f"Stopped following; run {run.pk} still waiting: {settings.BASE_URL}/runs/{run.pk}/" in errors
    assert f"manage.py runs {verb} {run.pk}" in errors
    assert "Traceback" not in errors
    run.refresh_from_db()
    assert run.status == "waiting"
