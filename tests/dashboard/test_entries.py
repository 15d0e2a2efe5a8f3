"""How each type of event is shown, and how events become blocks."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.template.loader import render_to_string
from hypothesis import given
from hypothesis import strategies as st

from djinn.dashboard.diffs import MOST_LINES, read_diff
from djinn.dashboard.entries import ENGINE_TYPES, KNOWN_TYPES, entry_of
from djinn.dashboard.folding import Change, Fold, patches_of, sections_of
from djinn.dashboard.texts import MOST_CHARACTERS, shown
from djinn.events.log import LoggedEvent
from runtime_image.djinn_runtime.protocol import RECORD_TYPES

AT = datetime(2025, 3, 4, 14, 2, 11, tzinfo=UTC)

TABLE: list[tuple[str, dict[str, Any], list[str]]] = [
    ("ready", {"python": "3.12.1", "mode": "agent"}, ["Container ready", "agent mode, Python 3.12.1"]),
    ("text", {"text": "I look.\n"}, ["Agent", "I look.\n"]),
    ("thinking", {"text": "Hm."}, ["Thinking", "Hm."]),
    ("message", {"text": "Done.", "role": "assistant", "tool_calls": []}, ["Agent", "Done."]),
    (
        "tool_call",
        {"id": "1", "name": "bash", "arguments": {"command": "ls -l"}},
        ["Tool call", "bash ls -l", '"command"'],
    ),
    (
        "tool_result",
        {"name": "bash", "text": "a.txt", "is_error": False, "seconds": 0.2},
        ["bash answered after 0.2 s", "a.txt"],
    ),
    (
        "tool_result",
        {"name": "bash", "text": "no", "is_error": True, "seconds": 1},
        ["bash failed after 1 s", " open>"],
    ),
    ("output", {"text": "hello\n"}, ["Output", "14:02:11", "hello\n"]),
    ("output", {"text": "oops", "stream": "stderr"}, ["stderr", 'data-tone="bad"', "oops"]),
    ("output", {"text": "???", "stream": "journal"}, ["journal", 'data-tone="warning"', "???"]),
    (
        "file_changed",
        {"path": "a/b.py", "change": "created", "added": 12, "removed": 0},
        ["File created", "a/b.py (+12 −0)"],
    ),
    ("usage", {"input_tokens": 12345, "output_tokens": 67, "cached_tokens": 0}, ["12,345 tokens in, 67 out"]),
    ("usage", {"input_tokens": 10, "output_tokens": 1, "cached_tokens": 4}, ["10 tokens in, 4 of them cached, 1 out"]),
    ("log", {"level": "warning", "message": "slow"}, ["Warning", "slow"]),
    ("log", {"level": "warning", "text": "it is slow"}, ["Warning", "it is slow"]),
    (
        "log",
        {
            "level": "warning",
            "text": "x",
            "retry": {"attempt": 3, "failure": "rate limited (429)", "next_seconds": 2.0},
        },
        ["Call failed", "rate limited (429)", "attempt 3: rate limited (429); retrying in 2 s", 'data-tone="warning"'],
    ),
    ("finished", {"status": "succeeded", "error": None}, ["Container finished", "succeeded"]),
    (
        "finished",
        {"status": "failed", "error": {"reason": "error", "message": "first\nsecond"}},
        ["Finished", "failed", "first\nsecond", 'data-tone="bad"'],
    ),
    ("notice", {"text": "no image"}, ["Notice", "no image"]),
    ("run_queued", {"pipeline": "review", "by": "olga"}, ["Run queued", "review, by olga"]),
    (
        "run_queued",
        {"pipeline": "review", "by": "olga", "continues": 7, "from_step": "TEST", "from_item": "2", "reused": 3},
        ["continues run 7 from TEST[2], results reused: 3"],
    ),
    ("run_started", {}, ["Run started"]),
    ("run_waiting", {}, ["Run waiting", "waiting for approval"]),
    ("run_paused", {}, ["Run paused"]),
    ("run_resumed", {}, ["Run resumed"]),
    ("pause_requested", {"by": "olga"}, ["Pause requested", "by olga"]),
    ("resume_requested", {"by": "olga"}, ["Resume requested", "by olga"]),
    ("retry_requested", {"by": "olga", "run": 9}, ["Retry requested", "by olga: run 9"]),
    ("rerun_requested", {"by": "o", "run": 9, "from_step": "A"}, ["Re-run requested", "by o from A: run 9"]),
    ("restart_requested", {"by": "olga", "run": 9, "inputs": {}}, ["Restart requested", "by olga: run 9"]),
    (
        "note_added",
        {"by": "olga", "step": "TEST", "agent": "", "text": "Mind it."},
        ["for step TEST, by olga", "Mind it."],
    ),
    ("note_added", {"by": "olga", "step": "", "agent": "tester", "text": "x"}, ["for agent tester, by olga"]),
    ("notified", {"agent": "tester", "text": "It is ready."}, ["Notified", "tells tester", "It is ready."]),
    ("step_waiting", {}, ["Step waiting", "approval requested"]),
    ("step_skipped", {"because": "BUILD failed"}, ["Step skipped", "BUILD failed"]),
    ("step_started", {"child": 9}, ["Step started", "as run 9"]),
    (
        "approval_asked",
        {"question": "Ship it?", "by": ["operator", "ada"], "count": 2, "expires_at": "2025-03-05T00:00:00Z"},
        ["2 needed by operator, ada, until 2025-03-05 00:00:00 UTC", "Ship it?"],
    ),
    (
        "approval_decided",
        {"by": "olga", "verdict": "approve", "status": "open", "agreed": 1, "count": 2, "comment": "Fine."},
        ["olga approves (1 of 2)", "Fine."],
    ),
    (
        "approval_decided",
        {"by": "olga", "verdict": "reject", "status": "rejected"},
        ["olga rejects", 'data-tone="bad"'],
    ),
    ("approval_void", {"because": "changed: diff"}, ["Approval void", "changed: diff"]),
    ("approval_expired", {}, ["Approval expired", 'data-tone="bad"']),
    ("run_finished", {"status": "failed", "reason": "out_of_memory", "message": "m"}, ["Run failed", "out of memory"]),
    ("step_finished", {"status": "failed", "reason": "timeout", "message": "m"}, ["Step failed", "timeout: m"]),
    ("step_finished", {"status": "failed", "reason": "error", "message": ""}, ["Step failed", "error"]),
    ("cancel_requested", {"by": "olga"}, ["Cancel requested", "by olga"]),
    ("cancel_requested", {"by": "Djinn", "because": "superseded by run 9"}, ["by Djinn: superseded by run 9"]),
    (
        "step_queued",
        {"because": "retry of 1.1", "delay_seconds": 4.0},
        ["Step queued", "retry of 1.1 (starts in 4.0 s)"],
    ),
    ("step_started", {"host": "one"}, ["Step started", "on one"]),
    ("step_adopted", {"lease": 2}, ["Step adopted"]),
    ("step_finished", {"status": "cancelled", "reason": "cancelled", "message": ""}, ["Step cancelled"]),
    ("weather", {"sky": "blue"}, ["Weather", '"sky": "blue"']),
]


@pytest.mark.parametrize(("kind", "data", "wanted"), TABLE)
def test_an_event_is_shown(kind: str, data: dict[str, Any], wanted: list[str]) -> None:
    html = _html([_event(1, kind, data)])
    assert [
        text for text in wanted if text.replace('"sky"', "&quot;sky&quot;") not in html and _escaped(text) not in html
    ] == []


def test_every_type_of_the_journal_and_of_the_engine_has_its_own_rendering() -> None:
    assert RECORD_TYPES | ENGINE_TYPES | {"notice", "notified"} == KNOWN_TYPES


def test_the_table_above_has_every_type() -> None:
    assert {kind for kind, *_ in TABLE} >= KNOWN_TYPES


def _nested(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Named: hypothesis reads the source of a lambda, and sometimes does not find its argument there."""
    return st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20), _nested, max_leaves=6
)
names = st.sampled_from(
    ["text", "name", "arguments", "error", "level", "stream", "status", "input_tokens", "delay_seconds", "by"]
)


@given(st.sampled_from(sorted(KNOWN_TYPES)), st.dictionaries(names, json_values))
def test_data_of_any_shape_is_shown_without_an_error(kind: str, data: dict[str, Any]) -> None:
    entry = entry_of(_event(1, kind, data))
    assert isinstance(entry.label + entry.text, str)


def test_a_value_that_is_too_long_is_cut_and_says_so() -> None:
    assert shown("x" * (MOST_CHARACTERS + 1500)).endswith("x\n[cut: 1,500 more characters are not shown here]")


def test_control_characters_become_visible_and_colours_of_terminals_go() -> None:
    assert shown("\x1b[31mred\x1b[0m a\x00b\r\nc\rd\te") == "red a␀b\nc\nd\te"


def test_neighbouring_deltas_are_one_block() -> None:
    assert _texts(["text:I ", "text:see", "thinking:Hm", "text:Yes"]) == ["I see", "Hm", "Yes"]


def test_another_stream_of_output_is_another_block() -> None:
    events = [
        _event(seq, "output", {"step_run": 7, "text": str(seq), "stream": s})
        for seq, s in enumerate(["stdout", "stdout", "stderr"], 1)
    ]
    assert [block.text for block in sections_of(Fold().take_all(events))[0].blocks] == ["12", "3"]


def test_output_after_a_pause_is_a_block_with_a_time_of_its_own() -> None:
    seconds = [0, 5, 14, 30, 31]
    events = [
        replace(_event(seq, "output", {"step_run": 7, "text": str(seq)}), at=AT + timedelta(seconds=each))
        for seq, each in enumerate(seconds, 1)
    ]
    assert [block.text for block in sections_of(Fold().take_all(events))[0].blocks] == ["123", "45"]


def retry(seq: int, value: Any) -> LoggedEvent:
    return _event(seq, "log", {"step_run": 7, "level": "warning", "text": "x", "retry": value})


def test_a_call_that_fails_again_and_again_is_one_folded_entry_until_it_went_through() -> None:
    failure = {"failure": "rate limited (429)", "next_seconds": 2}
    events = [retry(seq, {**failure, "attempt": seq}) for seq in range(1, 301)]
    changes = Fold().take_all([*events, retry(301, None), _event(302, "text", {"step_run": 7, "text": "Yes"})])
    first, second = sections_of(changes)[0].blocks
    lines = first.text.splitlines()
    assert (len(lines), lines[-1], second.text) == (301, "went through", "Yes")
    assert lines[41] == "attempt 42: rate limited (429); retrying in 2 s"


def test_a_call_that_went_through_without_a_failure_is_not_shown() -> None:
    assert Fold().take_all([retry(1, None)]) == []


def test_retries_that_come_live_stand_where_a_reload_shows_them() -> None:
    events = [retry(seq, {"attempt": seq, "failure": "away", "next_seconds": 1}) for seq in (1, 2, 3)]
    fold = Fold()
    (first,), (second,) = (patches_of(fold.take_all(part)) for part in (events[:1], events[1:]))
    (whole,) = sections_of(Fold().take_all(events))
    assert first.blocks[0].text + second.joined == whole.blocks[0].text


def test_a_failure_is_said_once_where_container_and_step_end() -> None:
    error = {"reason": "error", "message": "exit code 3: boom"}
    html = _html(
        [
            _event(1, "finished", {"step_run": 7, "status": "failed", "error": error}),
            _event(2, "step_finished", {"step_run": 7, "status": "failed", **error}),
            _event(3, "run_finished", {"status": "failed", "reason": "error", "message": "A: exit code 3: boom"}),
        ]
    )  # fmt: skip
    assert html.count("exit code 3: boom") == 1


def test_a_message_that_came_in_deltas_is_not_shown_again() -> None:
    assert _texts(["text:Hel", "text:lo", "message:Hello", "text:Next"]) == ["Hello", "Next"]


def test_a_message_without_deltas_is_shown() -> None:
    assert _texts(["text:A", "message:A", "message:B"]) == ["A", "B"]


def test_a_message_without_text_is_not_shown() -> None:
    assert _texts(["message:"]) == []


@pytest.mark.parametrize(
    ("kind", "data"),
    [("step_queued", {}), ("step_skipped", {"because": "A failed"}), ("step_finished", {"was_queued": False})],
)
def test_the_first_event_of_a_step_run_opens_its_section(kind: str, data: dict[str, Any]) -> None:
    (patch,) = patches_of(Fold().take_all([_event(1, kind, {"step_run": 7, **data})]))
    assert patch.opens


def test_the_end_of_a_step_that_was_queued_opens_nothing() -> None:
    (patch,) = patches_of(Fold().take_all([_event(1, "step_finished", {"step_run": 7, "status": "failed"})]))
    assert not patch.opens


def test_steps_that_speak_at_once_do_not_mix() -> None:
    events = [_event(seq, "text", {"step_run": 7 + seq % 2, "text": str(seq)}) for seq in range(6)]
    assert [[block.text for block in section.blocks] for section in sections_of(Fold().take_all(events))] == [
        ["024"],
        ["135"],
    ]


kinds = st.sampled_from(["text", "thinking", "message", "output", "log", "retry", "through", "weather"])
RETRIES = {"retry": {"retry": {"attempt": 1, "failure": "away"}}, "through": {"retry": None}}
places = st.sampled_from([7, 8, None])


@given(st.lists(st.tuples(kinds, places), max_size=30), st.data())
def test_a_page_that_grew_in_batches_is_the_page_that_was_loaded_at_once(
    events: list[tuple[str, int | None]], data: Any
) -> None:
    logged = [_event(1, "step_queued", {"step_run": 7}), _event(2, "step_queued", {"step_run": 8})]
    for seq, (kind, place) in enumerate(events, 3):
        told = {"text": f"{seq} ", "step_run": place, **RETRIES.get(kind, {})}
        logged.append(_event(seq, "log" if kind in RETRIES else kind, told))
    fold, grown = Fold(), _Page()
    start = 0
    while start < len(logged):
        end = start + data.draw(st.integers(1, len(logged) - start))
        grown.append(fold.take_all(logged[start:end]))
        start = end
    assert grown.places == _Page.of(Fold().take_all(logged)).places


class _Page:
    """The texts of the blocks of each place, as a browser would have them."""

    def __init__(self) -> None:
        self.places: dict[int | None, list[str]] = {}

    @classmethod
    def of(cls, changes: list[Change]) -> _Page:
        page = cls()
        for section in sections_of(changes):
            page.places.setdefault(section.step_run, []).extend(block.text for block in section.blocks)
        return page

    def append(self, changes: list[Change]) -> None:
        for patch in patches_of(changes):
            texts = self.places.setdefault(patch.place, [])
            if patch.joined:
                texts[-1] += patch.joined
            texts += [block.text for block in patch.blocks]


TWO_FILES = """\
diff --git a/x b/x
index 1..2
--- a/x
+++ b/x
@@ -1 +1,2 @@
-- old
+++ new
 same
diff --git a/y b/y
new file mode 100644
"""


def test_a_diff_is_cut_into_files_with_signed_lines() -> None:
    diff = read_diff(TWO_FILES)
    assert [(file.path, file.added, file.removed, [line.text for line in file.lines]) for file in diff.files] == [
        ("x", 1, 1, ["@@ -1 +1,2 @@", "-- old", "+++ new", " same"]),
        ("y", 0, 0, ["new file mode 100644"]),
    ]


def test_a_long_diff_is_cut_and_says_by_how_much() -> None:
    diff = read_diff("diff --git a/x b/x\n@@ -0,0 +1 @@\n" + "+line\n" * (MOST_LINES + 9))
    assert (len(diff.files[0].lines), diff.hidden_lines, diff.files[0].added) == (MOST_LINES, 10, MOST_LINES + 9)


def _event(seq: int, kind: str, data: dict[str, Any]) -> LoggedEvent:
    return LoggedEvent(seq, kind, data, AT, None)


def _html(events: list[LoggedEvent]) -> str:
    sections = sections_of(Fold().take_all(events))
    return "".join(render_to_string("dashboard/run/blocks.html", {"blocks": section.blocks}) for section in sections)


def _escaped(text: str) -> str:
    return re.sub('"', "&quot;", text)


def _texts(events: list[str]) -> list[str]:
    """The blocks' texts after `kind:text` events of one step run."""
    logged = [
        _event(seq, kind, {"text": text, "step_run": 7})
        for seq, (kind, _, text) in enumerate((e.partition(":") for e in events), 1)
    ]
    return [block.text for section in sections_of(Fold().take_all(logged)) for block in section.blocks]
