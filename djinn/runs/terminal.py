"""A run in a terminal: its log as it happens, a table of its steps below, and what came of it at the end."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.rule import Rule
from rich.syntax import Syntax
from rich.table import Table
from rich.text import Text

from djinn.events.log import PAGE, LoggedEvent, read_after
from djinn.runs.models import Run
from djinn.runs.selectors import RunView, run_view
from djinn.runs.states import RunStatus

LOOK_SECONDS = 0.1
TABLE_SECONDS = 0.5
LONGEST_LINE = 400
MOST_RESULT_LINES = 12
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""ECMA-48's control characters but for tab and line feed. A carriage return would write over its line."""
MARKS = {"queued": "·", "running": "▶", "succeeded": "✔", "failed": "✘", "cancelled": "■"}
COLOURS = {"queued": "dim", "running": "cyan", "succeeded": "green", "failed": "red", "cancelled": "yellow"}


def follow(run: Run, console: Console, *, meanwhile: Callable[[], None] = lambda: None) -> RunView:
    """Show the run until it has ended; what it was then. Interrupting stops the showing, not the run.

    `meanwhile` is called again and again, for a caller who has something to look after.
    """
    lines = Lines()
    seq, looked = 0, 0.0
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
            if console.is_terminal:
                live.update(Group(lines.unfinished, step_table(view)))
            if run.is_final and len(events) < PAGE and not read_after(run.stream, seq, limit=1):
                for line in lines.flush():
                    live.console.print(line, soft_wrap=True)
                return run_view(run)
            if not events:
                time.sleep(LOOK_SECONDS)


class Lines:
    """Turns events into lines. Text that comes in pieces is held back until its line is whole."""

    def __init__(self) -> None:
        self._text = ""
        self._style = ""
        self._spoken: set[Any] = set()

    @property
    def unfinished(self) -> Text:
        """The line that is being written."""
        return Text(self._text[-LONGEST_LINE:], style=self._style)

    def of(self, event: LoggedEvent) -> Iterable[Any]:
        """The lines that this event completes or adds."""
        event = replace(event, data=harmless(event.data))
        data = event.data
        pieces = {"text": "", "thinking": "dim italic", "output": "dim"}
        if event.type in pieces:
            if event.type == "text":
                self._spoken.add(data.get("step_run"))
            style = "red" if data.get("stream") == "stderr" and event.type == "output" else pieces[event.type]
            yield from self._add(str(data.get("text", "")), style)
            return
        yield from self.flush()
        yield from _entry(event, has_spoken=data.get("step_run") in self._spoken)

    def flush(self) -> Iterable[Text]:
        """The held back line, if any."""
        if self._text:
            yield self._line(self._text)
            self._text = ""

    def _add(self, text: str, style: str) -> Iterable[Text]:
        if style != self._style:
            yield from self.flush()
            self._style = style
        *whole, self._text = (self._text + text).split("\n")
        for line in whole:
            yield self._line(line)

    def _line(self, text: str) -> Text:
        return Text("  " + text[:LONGEST_LINE], style=self._style)


def harmless(value: Any) -> Any:
    """The JSON value without colours and with every other control character replaced: what agents write could make a
    terminal rename itself, fill the clipboard or hide what follows."""
    if isinstance(value, str):
        return CONTROL.sub("\ufffd", COLOUR.sub("", value))
    if isinstance(value, Mapping):
        return {harmless(key): harmless(item) for key, item in value.items()}
    if isinstance(value, list):
        return [harmless(item) for item in value]
    return value


def step_table(view: RunView) -> Table:
    """The run's step runs, one a row."""
    table = Table(
        title=f"run {view.row.pk} · {view.row.pipeline} · {view.row.status}", title_justify="left", expand=False
    )
    for name in ("#", "step", "visit", "try", "status", "time", "tokens in/out"):
        table.add_column(name, justify="right" if name in {"#", "visit", "try", "time", "tokens in/out"} else "left")
    for step in view.steps:
        row, colour = step.row, COLOURS[step.row.status]
        status = f"[{colour}]{MARKS[row.status]} {row.status}[/]" + (f" ({row.reason})" if row.reason else "")
        tokens = f"{step.bill.input_tokens}/{step.bill.output_tokens}" if step.bill.calls else ""
        table.add_row(
            str(row.number), escape(row.step), str(row.visit), str(row.attempt), status, _seconds(step.duration), tokens
        )
    return table


def print_result(view: RunView, console: Console, *, url: str) -> None:
    """Status, durations, tokens, the diff, and where the run's page is."""
    run = view.row
    console.print()
    console.print(step_table(view))
    if view.diff:
        console.print(Rule("what the run changed", align="left"))
        console.print(Syntax(harmless(view.diff), "diff", background_color="default", word_wrap=True))
    console.print(Rule(align="left"))
    colour = COLOURS[run.status]
    console.print(f"[{colour}]{MARKS[run.status]} {run.get_status_display()}[/] in {_seconds(view.duration)}")
    if run.message:
        console.print(f"  {escape(harmless(run.message))}")
    cost = "unknown" if view.bill.cost_usd is None else f"${view.bill.cost_usd:.4f}"
    tokens = f"{view.bill.input_tokens} tokens in, {view.bill.output_tokens} out"
    console.print(f"  {view.bill.calls} model calls, {tokens}, cost {cost}")
    console.print(f"  page: {url}/runs/{run.pk}/", soft_wrap=True)


def has_succeeded(view: RunView) -> bool:
    """Whether the run ended well."""
    return view.row.status == RunStatus.SUCCEEDED


def _entry(event: LoggedEvent, *, has_spoken: bool) -> Iterable[Any]:
    data = event.data
    step = escape(str(data.get("step", "")))
    match event.type:
        case "step_started":
            yield Rule(f"[bold]{step}[/] · visit {data['visit']}, try {data['attempt']}", align="left", style="cyan")
        case "step_finished":
            colour = COLOURS.get(str(data["status"]), "")
            reason = f" ({data['reason']}): {escape(str(data['message']))}" if data.get("reason") else ""
            yield f"[{colour}]{MARKS.get(str(data['status']), '')} {step} {data['status']}[/]{reason}"
            for name, value in (data.get("outputs") or {}).items():
                yield f"    [bold]{escape(name)}[/] = {escape(str(value)[:LONGEST_LINE])}"
        case "step_adopted":
            yield f"[yellow]{step}: another worker took over; the container went on[/]"
        case "message" if data.get("text") and not has_spoken:
            yield Text("  " + str(data["text"]))
        case "tool_call":
            yield f"  [magenta]→ {escape(str(data.get('name')))}[/] {escape(_short(data.get('arguments')))}"
        case "tool_result" if data.get("name") != "bash":
            yield from _result(data)
        case "tool_result" if data.get("is_error"):
            yield from _result(data)
        case "file_changed":
            yield f"  [green]✎ {escape(str(data.get('path')))}[/] +{data.get('added', '?')} -{data.get('removed', '?')}"
        case "notice" | "log":
            yield f"  [yellow]! {escape(str(data.get('text') or data.get('message') or dict(data)))}[/]"
        case "cancel_requested":
            yield f"[yellow]cancel requested by {escape(str(data.get('by')))}[/]"
        case "run_finished":
            yield f"run {data['status']}" + (f": {escape(str(data['message']))}" if data.get("message") else "")


def _result(data: Any) -> Iterable[Text]:
    lines = str(data.get("text", "")).splitlines()
    style = "red" if data.get("is_error") else "dim"
    for line in lines[:MOST_RESULT_LINES]:
        yield Text("    " + line[:LONGEST_LINE], style=style)
    if len(lines) > MOST_RESULT_LINES:
        yield Text(f"    … {len(lines) - MOST_RESULT_LINES} more lines", style=style)


def _short(arguments: Any) -> str:
    if isinstance(arguments, dict) and len(arguments) == 1:
        return str(next(iter(arguments.values())))[:LONGEST_LINE]
    return json.dumps(arguments, ensure_ascii=False)[:160]


def _seconds(duration: Any) -> str:
    return "" if duration is None else f"{duration.total_seconds():.1f} s"
