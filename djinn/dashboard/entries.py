"""What the log shows of an event: every type of the journal and of the engine, and anything else as it came.

The data of most events came out of a container: any value may be missing or of another type than it should be, and all
of it is text for the template to escape.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from djinn.dashboard.texts import shown, word
from djinn.events.log import LoggedEvent
from djinn.executions.ending import one_line
from djinn.executions.retries import retry_of
from djinn.pipelines.history import named

JSON = Any
Data = Mapping[str, JSON]
Shape = Literal["prose", "output", "line", "details", "retries"]

RETRY = "retry"
_ENDINGS = {"succeeded": "good", "failed": "bad", "cancelled": "muted"}
_VERDICTS = {"approves": "good", "rejects": "bad"}
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
    parts = (_ENTRIES.get(event.type) or _ENGINE_ENTRIES.get(event.type, _unknown))(event.data)
    label = parts.pop("label")
    return Entry(seq=event.seq, at=event.at, type=event.type, label=word(label), **parts)


def is_retry(event: LoggedEvent) -> bool:
    """Whether the event tells that a model call failed and is made again, or that it went through."""
    return event.type == "log" and RETRY in event.data


def step_run_of(event: LoggedEvent) -> int | None:
    """The step run that the event tells of; None for what concerns the whole run."""
    value = event.data.get("step_run")
    return value if type(value) is int and value > 0 else None


def _word(data: Data, name: str, default: str = "") -> str:
    value = data.get(name)
    return default if value is None or value == "" else word(value)


def _count(data: Data, name: str) -> str:
    value = data.get(name)
    return f"{value:,}" if isinstance(value, (int, float)) and not isinstance(value, bool) else "?"


def _moment(value: JSON) -> str:
    """A time of ISO 8601, as pages write times."""
    try:
        return f"{datetime.fromisoformat(value).astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    except (TypeError, ValueError, OverflowError):
        return word(value)


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
    stream = _word(data, "stream", "Output")
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
    if RETRY in data:
        return _retry(data)
    level = _word(data, "level", "info")
    return _line(level.capitalize(), shown(data.get("text") or data.get("message", "")), _LEVELS.get(level, "muted"))


def _retry(data: Data) -> dict[str, Any]:
    """A failed attempt of a model call, or that it went through: one entry holds all of a call."""
    parts = {"shape": "retries", "label": "and was tried again", "tone": "warning", "joins": RETRY}
    retry = retry_of(data)
    if retry is None:
        return {**parts, "text": "went through\n"}
    number = f"attempt {retry.attempt}: " if retry.attempt else ""
    text = f"{number}{shown(retry.failure)}; {retry.again}\n"
    return {**parts, "label": shown(retry.failure), "text": text}


def _finished(data: Data) -> dict[str, Any]:
    """How the container's work ended. The step's end says why in a line; what does not fit into one stands here."""
    status = _word(data, "status", "?")
    error = data.get("error")
    message = str(error.get("message") or "") if isinstance(error, Mapping) else ""
    if message != one_line(message):
        return {"shape": "details", "label": status, "text": shown(message), "tone": _ENDINGS.get(status, "")}
    return _line("Container finished", status, "muted")


def _step_finished(data: Data) -> dict[str, Any]:
    status, reason, message = (_word(data, name) for name in ("status", "reason", "message"))
    code = "" if reason == "error" and message else reason.replace("_", " ")
    return _line(f"Step {status or 'ended'}", ": ".join(filter(None, (code, message))), _ENDINGS.get(status, ""))


def _run_finished(data: Data) -> dict[str, Any]:
    """The message stands at the head of the page."""
    status = _word(data, "status", "ended")
    code = _word(data, "reason").replace("_", " ")
    return _line(f"Run {status}", "" if code in ("error", status) else code, _ENDINGS.get(status, ""))


def _step_queued(data: Data) -> dict[str, Any]:
    delay = data.get("delay_seconds")
    wait = f" (starts in {word(delay)} s)" if delay else ""
    return _line("Step queued", f"{_word(data, 'because')}{wait}", "muted")


def _run_queued(data: Data) -> dict[str, Any]:
    parts = [_word(data, "pipeline"), f"by {_word(data, 'by', 'nobody')}"]
    if data.get("continues"):
        where = f" from {named(_word(data, 'from_step'), _word(data, 'from_item'))}" if data.get("from_step") else ""
        parts.append(f"continues run {_word(data, 'continues')}{where}")
    if data.get("reused"):
        parts.append(f"results reused: {_count(data, 'reused')}")
    return _line("Run queued", ", ".join(parts), "muted")


def _step_started(data: Data) -> dict[str, Any]:
    text = f"as run {_word(data, 'child')}" if data.get("child") else f"on {_word(data, 'host', '?')}"
    return _line("Step started", text, "muted")


def _wanted(label: str, tone: str = "") -> Callable[[Data], dict[str, Any]]:
    def entry(data: Data) -> dict[str, Any]:
        why = f": {_word(data, 'because')}" if data.get("because") else ""
        return _line(label, f"by {_word(data, 'by', 'nobody')}{why}", tone)

    return entry


def _gone_on(label: str) -> Callable[[Data], dict[str, Any]]:
    def entry(data: Data) -> dict[str, Any]:
        where = f" from {named(_word(data, 'from_step'), _word(data, 'from_item'))}" if data.get("from_step") else ""
        return _line(label, f"by {_word(data, 'by', 'nobody')}{where}: run {_word(data, 'run', '?')}")

    return entry


def _notified(data: Data) -> dict[str, Any]:
    text = shown(data.get("text", ""))
    return {"shape": "details", "label": f"tells {_word(data, 'agent', 'an agent')}", "text": text}


def _note_added(data: Data) -> dict[str, Any]:
    whom = f"step {_word(data, 'step')}" if data.get("step") else f"agent {_word(data, 'agent', '?')}"
    label = f"for {whom}, by {_word(data, 'by', 'nobody')}"
    return {"shape": "details", "label": label, "text": shown(data.get("text", "")), "is_open": True}


def _approval_asked(data: Data) -> dict[str, Any]:
    by = data.get("by")
    whom = ", ".join(map(word, by)) if isinstance(by, list) else word(by or "?")
    until = f", until {_moment(data['expires_at'])}" if data.get("expires_at") else ""
    label = f"{_count(data, 'count')} needed by {whom}{until}"
    return {"shape": "details", "label": label, "text": shown(data.get("question", "")), "tone": "warning"}


def _approval_decided(data: Data) -> dict[str, Any]:
    verdict = {"approve": "approves", "reject": "rejects"}.get(_word(data, "verdict"), "decides")
    comment = shown(data.get("comment") or "")
    far = f" ({_count(data, 'agreed')} of {_count(data, 'count')})" if _word(data, "status") == "open" else ""
    return _line(f"{_word(data, 'by', 'somebody')} {verdict}{far}", comment, _VERDICTS.get(verdict, ""))


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
    "notified": _notified,
}
_ENGINE_ENTRIES: Mapping[str, Callable[[Data], dict[str, Any]]] = {
    "run_queued": _run_queued,
    "run_started": lambda data: _line("Run started", "", "muted"),
    "run_waiting": lambda data: _line("Run waiting", "waiting for approval", "warning"),
    "run_paused": lambda data: _line("Run paused", "nothing new starts", "warning"),
    "run_resumed": lambda data: _line("Run resumed", "", "muted"),
    "run_finished": _run_finished,
    "cancel_requested": _wanted("Cancel requested", "warning"),
    "pause_requested": _wanted("Pause requested", "warning"),
    "resume_requested": _wanted("Resume requested"),
    "retry_requested": _gone_on("Retry requested"),
    "rerun_requested": _gone_on("Re-run requested"),
    "restart_requested": _gone_on("Restart requested"),
    "note_added": _note_added,
    "step_queued": _step_queued,
    "step_started": _step_started,
    "step_waiting": lambda data: _line("Step waiting", "approval requested", "warning"),
    "step_adopted": lambda data: _line("Step adopted", "its worker was silent, another one goes on with it", "warning"),
    "step_skipped": lambda data: _line("Step skipped", _word(data, "because"), "muted"),
    "step_finished": _step_finished,
    "approval_asked": _approval_asked,
    "approval_decided": _approval_decided,
    "approval_void": lambda data: _line("Approval void", _word(data, "because"), "warning"),
    "approval_expired": lambda data: _line("Approval expired", "nobody decided in time", "bad"),
}

KNOWN_TYPES = frozenset({*_ENTRIES, *_ENGINE_ENTRIES})
ENGINE_TYPES = frozenset(_ENGINE_ENTRIES)
"""What changes rows: after these the page's status, steps and results are sent anew."""
