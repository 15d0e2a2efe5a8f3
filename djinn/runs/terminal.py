"""A run in a terminal: its log as it happens, a table of its steps below, and what came of it at the end."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from django.conf import settings
from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.rule import Rule
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from djinn.events.log import PAGE, read_after
from djinn.pipelines.history import named
from djinn.runs.deciders import waiting_in
from djinn.runs.lines import COLOURS, MARKS, Lines, harmless
from djinn.runs.models import Approval, Run
from djinn.runs.selectors import RunView, run_view
from djinn.runs.states import RunStatus, StepStatus

LOOK_SECONDS = 0.1
TABLE_SECONDS = 0.5


def follow(run: Run, console: Console, *, after: int = 0, meanwhile: Callable[[], None] = lambda: None) -> RunView:
    """Show the run behind the event `after` until it has ended; what it was then. Interrupting stops the showing only.

    `meanwhile` is called again and again, for a caller who has something to look after.
    """
    lines, waiting = Lines(), _Waiting(run)
    seq, looked = after, 0.0
    view = run_view(run)
    with Live(console=console, refresh_per_second=8, transient=True) as live:
        while True:
            meanwhile()
            events = read_after(run.stream, seq)
            for event in events:
                seq = event.seq
                for line in lines.of(event):
                    live.console.print(line, soft_wrap=True)
            if time.monotonic() - looked > TABLE_SECONDS or any(
                event.type.startswith(("step_", "run_")) for event in events
            ):
                run.refresh_from_db()
                view, looked = run_view(run), time.monotonic()
                for line in waiting.look():
                    live.console.print(line, soft_wrap=True)
            if console.is_terminal:
                live.update(Group(lines.unfinished, step_table(view), *waiting.lines, *_calls(lines)))
            if run.is_final and len(events) < PAGE and not read_after(run.stream, seq, limit=1):
                for line in lines.flush():
                    live.console.print(line, soft_wrap=True)
                return run_view(run)
            if not events:
                time.sleep(LOOK_SECONDS)


class _Waiting:
    """The questions that hold the run up, or one of a pipeline that it uses: each is told once, and kept below."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._told: set[int] = set()
        self.lines: list[Text] = []

    def look(self) -> Iterable[Text]:
        """What has to be said of those that are new."""
        found = [] if self._run.is_final else waiting_in(self._run)
        self.lines = [Text(line, style="yellow") for one in found for line in how_to_answer(one)]
        for one in found:
            if one.pk not in self._told:
                self._told.add(one.pk)
                yield from (Text(line, style="yellow") for line in how_to_answer(one))


def how_to_answer(approval: Approval) -> list[str]:
    """What waits, where it is shown, and the command that answers it."""
    row = approval.step_run
    name = harmless(f"{named(row.step, row.item)} of run {row.run_id}")
    return [
        f"Waiting for approval: {name}",
        f"  review: {settings.BASE_URL}/approvals/{approval.pk}/",
        f"  answer: {typed('approvals', 'approve', approval.pk)}   (or reject; --as USER)",
    ]


def typed(*words: object) -> str:
    """A command of ours as a person here types it."""
    python = Path(sys.executable)
    here = Path.cwd()
    shown = python.relative_to(here) if python.is_relative_to(here) else python
    return shlex.join(map(str, (shown, "manage.py", *words)))


def _calls(lines: Lines) -> list[Text]:
    return [Text(text, style="yellow") for text in lines.calls.values()]


def step_table(view: RunView) -> Table:
    """The run's step runs, one a row."""
    table = Table(
        title=f"run {view.row.pk} · {view.row.pipeline} · {view.row.status}", title_justify="left", expand=False
    )
    for name in ("#", "step", "visit", "attempt", "status", "time", "tokens in/out"):
        table.add_column(name, justify="left" if name in {"step", "status"} else "right")
    for step in view.steps:
        row, colour = step.row, COLOURS[step.row.status]
        status = f"[{colour}]{MARKS[row.status]} {row.status}[/]" + (f" ({row.reason})" if row.reason else "")
        tokens = f"{step.bill.input_tokens}/{step.bill.output_tokens}" if step.bill.calls else ""
        table.add_row(
            str(row.number), escape(row.step), str(row.visit), str(row.attempt), status, _seconds(step.duration), tokens
        )
    return table


def print_result(view: RunView, console: Console, *, url: str, has_diff: bool = True) -> None:
    """Status, durations, tokens, the diff, and where the run's page and a failed step's log are."""
    run = view.row
    console.print()
    console.print(step_table(view))
    if view.diff and has_diff:
        console.print(Rule("what the run changed", align="left"))
        console.print(Syntax(harmless(view.diff), "diff", background_color="default", word_wrap=True))
    console.print(Rule(align="left"))
    colour, took = COLOURS[run.status], f" in {_seconds(view.duration)}" if view.duration else ""
    console.print(f"[{colour}]{MARKS[run.status]} {run.get_status_display()}[/]{took}")
    if run.message:
        console.print(f"  {escape(harmless(run.message))}")
    cost = "unknown" if view.bill.cost_usd is None else f"${view.bill.cost_usd:.4f}"
    tokens = f"{view.bill.input_tokens} tokens in, {view.bill.output_tokens} out"
    console.print(f"  {view.bill.calls} model calls, {tokens}, cost {cost}")
    console.print(f"  page: {url}/runs/{run.pk}/", soft_wrap=True)
    failed = [step.row for step in view.steps if step.row.status == StepStatus.FAILED and step.row.execution_id]
    if failed and run.status == RunStatus.FAILED:
        name = named(failed[-1].step, failed[-1].item)
        console.print(f"  log:  {escape(typed('runs', 'logs', run.pk, '--step', name))}", soft_wrap=True)


def has_succeeded(view: RunView) -> bool:
    """Whether the run ended well."""
    return view.row.status == RunStatus.SUCCEEDED


def _seconds(duration: Any) -> str:
    return "" if duration is None else f"{duration.total_seconds():.1f} s"
