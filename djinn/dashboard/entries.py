"""What the log shows of an event: every type of the journal and of the engine, and anything else as it came.

The data of most events came out of a container: any value may be missing or of another type than it should be, and all
of it is text for the template to escape.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from djinn.events.log import LoggedEvent

JSON = Any
Data = Mapping[str, JSON]
Shape = Literal["prose", "output", "line", "details"]

MOST_CHARACTERS = 8192
"""How much of one value is shown; the journal's own pieces fit."""
MOST_WORD_CHARACTERS = 300
_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_CONTROLS = {code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\n\t"} | {0x7F: "\u2421"}
_ENDINGS = {"succeeded": "good", "failed": "bad", "cancelled": "muted"}
_LEVELS = {"warning": "warning", "error": "bad", "critical": "bad"}


@dataclass(frozen=True)
class Entry:
    """One entry of the log. Neighbours with the same `joins` are one block; empty joins nothing."""

    seq: int
    at: datetime
    type: str
    shape: Shape
    label: str
    text: str = ""
    tone: str = ""
    joins: str = ""
    is_open: bool = False


def entry_of(event: LoggedEvent) -> Entry:
    """How the event is shown."""
    parts = _ENTRIES.get(event.type, _unknown)(event.data)
    label = parts.pop("label")
    return Entry(seq=event.seq, at=event.at, type=event.type, label=word(label), **parts)


def step_run_of(event: LoggedEvent) -> int | None:
    """The step run that the event tells of; None for what concerns the whole run."""
    value = event.data.get("step_run")
    return value if type(value) is int and value > 0 else None


def shown(value: JSON) -> str:
    """The value as text: strings as they are, else indented JSON; cut, and then it says so."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2, default=str)
    text = _ANSI.sub("", text).replace("\r\n", "\n").replace("\r", "\n").translate(_CONTROLS)
    if len(text) <= MOST_CHARACTERS:
        return text
    return f"{text[:MOST_CHARACTERS]}\n[cut: {len(text) - MOST_CHARACTERS:,} more characters are not shown here]"


def word(value: JSON) -> str:
    """The value in one line; cut with an ellipsis."""
    text = " ".join(shown(value).split())
    return text if len(text) <= MOST_WORD_CHARACTERS else text[: MOST_WORD_CHARACTERS - 1] + "…"


def _word(data: Data, name: str, default: str = "") -> str:
    value = data.get(name)
    return default if value is None or value == "" else word(value)


def _count(data: Data, name: str) -> str:
    value = data.get(name)
    return f"{value:,}" if isinstance(value, (int, float)) and not isinstance(value, bool) else "?"


def _line(label: str, text: str = "", tone: str = "") -> dict[str, Any]:
    return {"shape": "line", "label": label, "text": text, "tone": tone}


def _prose(label: str, tone: str = "") -> Callable[[Data], dict[str, Any]]:
    kind = label.lower()
    return lambda data: {
        "shape": "prose",
        "label": label,
        "text": shown(data.get("text", "")),
        "tone": tone,
        "joins": kind,
    }


def _message(data: Data) -> dict[str, Any]:
    return {"shape": "prose", "label": "Agent", "text": shown(data.get("text") or "")}


def _output(data: Data) -> dict[str, Any]:
    stream = _word(data, "stream", "stdout")
    tone = {"stderr": "bad", "journal": "warning"}.get(stream, "")
    return {
        "shape": "output",
        "label": stream,
        "text": shown(data.get("text", "")),
        "tone": tone,
        "joins": f"output {stream}",
    }


def _tool_call(data: Data) -> dict[str, Any]:
    arguments = data.get("arguments", {})
    first = next(iter(arguments.values()), "") if isinstance(arguments, Mapping) else arguments
    label = f"{_word(data, 'name', 'a tool')} {word(first)[:80]}".strip()
    return {"shape": "details", "label": label, "text": shown(arguments), "tone": "call"}


def _tool_result(data: Data) -> dict[str, Any]:
    is_error = data.get("is_error") is True
    ending = "failed" if is_error else "answered"
    label = f"{_word(data, 'name', 'a tool')} {ending} after {_word(data, 'seconds', '?')} s"
    text = shown(data.get("text", ""))
    return {"shape": "details", "label": label, "text": text, "tone": "bad" if is_error else "", "is_open": is_error}


def _file_changed(data: Data) -> dict[str, Any]:
    text = f"{_word(data, 'path', '?')} (+{_count(data, 'added')} −{_count(data, 'removed')})"
    return _line(f"File {_word(data, 'change', 'changed')}", text)


def _usage(data: Data) -> dict[str, Any]:
    cached = f", {_count(data, 'cached_tokens')} of them cached" if data.get("cached_tokens") else ""
    text = f"{_count(data, 'input_tokens')} tokens in{cached}, {_count(data, 'output_tokens')} out"
    return _line("Usage", text, "muted")


def _log(data: Data) -> dict[str, Any]:
    level = _word(data, "level", "info")
    return _line(level.capitalize(), shown(data.get("message", "")), _LEVELS.get(level, "muted"))


def _finished(data: Data) -> dict[str, Any]:
    status = _word(data, "status", "?")
    error = data.get("error") if isinstance(data.get("error"), Mapping) else {}
    text = ": ".join(filter(None, (_word(error, "reason"), shown(error.get("message") or "")))) if error else ""
    return _line(f"The work in the container {status}", text, _ENDINGS.get(status, ""))


def _ended(what: str) -> Callable[[Data], dict[str, Any]]:
    def entry(data: Data) -> dict[str, Any]:
        status = _word(data, "status", "ended")
        text = ": ".join(filter(None, (_word(data, "reason").replace("_", " "), shown(data.get("message") or ""))))
        return _line(f"{what} {status}", text, _ENDINGS.get(status, ""))

    return entry


def _step_queued(data: Data) -> dict[str, Any]:
    delay = data.get("delay_seconds")
    wait = f" (starts in {word(delay)} s)" if delay else ""
    return _line("Step queued", f"{_word(data, 'because')}{wait}", "muted")


def _unknown(data: Data) -> dict[str, Any]:
    return {
        "shape": "details",
        "label": "(a type that this page does not know)",
        "text": shown(dict(data)),
        "tone": "muted",
    }


_ENTRIES: Mapping[str, Callable[[Data], dict[str, Any]]] = {
    "ready": lambda data: _line(
        "Container ready", f"{_word(data, 'mode')} mode, Python {_word(data, 'python', '?')}", "muted"
    ),
    "text": _prose("Agent"),
    "thinking": _prose("Thinking", "muted"),
    "message": _message,
    "tool_call": _tool_call,
    "tool_result": _tool_result,
    "output": _output,
    "file_changed": _file_changed,
    "usage": _usage,
    "log": _log,
    "finished": _finished,
    "notice": lambda data: _line("Notice", shown(data.get("text", "")), "warning"),
    "run_queued": lambda data: _line(
        "Run queued", f"{_word(data, 'pipeline')}, by {_word(data, 'by', 'nobody')}", "muted"
    ),
    "run_started": lambda data: _line("Run started", "", "muted"),
    "run_finished": _ended("Run"),
    "cancel_requested": lambda data: _line("Cancel requested", f"by {_word(data, 'by', 'nobody')}", "warning"),
    "step_queued": _step_queued,
    "step_started": lambda data: _line("Step started", f"on {_word(data, 'host', '?')}", "muted"),
    "step_adopted": lambda data: _line("Step adopted", "its worker was silent, another one goes on with it", "warning"),
    "step_finished": _ended("Step"),
}

KNOWN_TYPES = frozenset(_ENTRIES)
ENGINE_TYPES = frozenset(
    {
        "run_queued",
        "run_started",
        "run_finished",
        "cancel_requested",
        "step_queued",
        "step_started",
        "step_adopted",
        "step_finished",
    }
)
"""What changes rows: after these the page's status, steps and results are sent anew."""
