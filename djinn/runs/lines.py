"""From events to lines of a terminal, in which nothing that an agent wrote can command that terminal."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from rich.markup import escape
from rich.rule import Rule
from rich.text import Text

from djinn.events.log import LoggedEvent
from djinn.executions.retries import retry_of

LONGEST_LINE = 400
MOST_RESULT_LINES = 12
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""ECMA-48's control characters but for tab and line feed. A carriage return would write over its line."""
MARKS = {"queued": "·", "running": "▶", "waiting": "?", "succeeded": "✔", "failed": "✘", "cancelled": "■"}
MARKS |= {"paused": "‖", "skipped": "–"}
COLOURS = {"queued": "dim", "running": "cyan", "succeeded": "green", "failed": "red", "cancelled": "yellow"}
COLOURS |= {"waiting": "yellow", "paused": "yellow", "skipped": "dim"}


class Lines:
    """Turns events into lines. Text that comes in pieces is held back until its line is whole.

    Of a model call that fails again and again one line is shown; `calls` holds how each of them stands.
    """

    def __init__(self, *, longest: int = LONGEST_LINE) -> None:
        self.calls: dict[Any, str] = {}
        self._failures: dict[Any, str] = {}
        self._longest = longest
        self._text = ""
        self._style = ""
        self._spoken: set[Any] = set()

    @property
    def unfinished(self) -> Text:
        """The line that is being written."""
        return Text(self._text[-self._longest :], style=self._style)

    def of(self, event: LoggedEvent) -> Iterable[Any]:
        """The lines that this event completes or adds."""
        event = replace(event, data=harmless(event.data))
        data = event.data
        pieces = {"text": "", "thinking": "dim italic", "output": "dim"}
        if event.type in pieces:
            if event.type == "text":
                self._spoken.add(data.get("step_run"))
            yield from self._add(str(data.get("text", "")), pieces[event.type])
            return
        yield from self.flush()
        if event.type == "log" and "retry" in data:
            yield from self._retry(data)
            return
        if event.type == "step_finished":
            self._forget(data.get("step_run"))
        yield from _entry(event, has_spoken=data.get("step_run") in self._spoken)

    def flush(self) -> Iterable[Text]:
        """The held back line, if any."""
        if self._text:
            yield self._line(self._text)
            self._text = ""

    def _retry(self, data: Mapping[str, Any]) -> Iterable[Text]:
        retry, place = retry_of(data), data.get("step_run")
        if retry is None:
            self._forget(place)
            return
        self.calls[place] = f"{data.get('step', '')}: {retry}".removeprefix(": ")
        if self._failures.get(place) != retry.failure:
            self._failures[place] = retry.failure
            yield Text(f"  ! {retry}", style="yellow")

    def _forget(self, place: Any) -> None:
        self.calls.pop(place, None)
        self._failures.pop(place, None)

    def _add(self, text: str, style: str) -> Iterable[Text]:
        if style != self._style:
            yield from self.flush()
            self._style = style
        *whole, self._text = (self._text + text).split("\n")
        for line in whole:
            yield self._line(line)

    def _line(self, text: str) -> Text:
        return Text("  " + text[: self._longest], style=self._style)


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
        case "approval_asked":
            yield f"[yellow]? {step} waits for approval by {_people(data.get('by'))}[/]"
            yield from _cut_text(str(data.get("question", "")))
        case "approval_decided":
            verdict = {"approve": "approved", "reject": "rejected"}.get(str(data.get("verdict")), "decided")
            comment = f": {escape(str(data['comment']))}" if data.get("comment") else ""
            yield f"[yellow]{step}: {verdict} by {escape(str(data.get('by')))}[/]{comment}"
        case "approval_expired":
            yield f"[red]{step}: nobody decided in time[/]"
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


def _people(value: Any) -> str:
    return escape(" or ".join(map(str, value)) if isinstance(value, list) else str(value))


def _result(data: Any) -> Iterable[Text]:
    return _cut_text(str(data.get("text", "")), style="red" if data.get("is_error") else "dim")


def _cut_text(text: str, *, style: str = "") -> Iterable[Text]:
    lines = text.splitlines()
    for line in lines[:MOST_RESULT_LINES]:
        yield Text("    " + line[:LONGEST_LINE], style=style)
    if len(lines) > MOST_RESULT_LINES:
        yield Text(f"    … {len(lines) - MOST_RESULT_LINES} more lines", style=style)


def _short(arguments: Any) -> str:
    if isinstance(arguments, dict) and len(arguments) == 1:
        return str(next(iter(arguments.values())))[:LONGEST_LINE]
    return json.dumps(arguments, ensure_ascii=False)[:160]
