"""The pure parts, by tables: events, clipping, retries, globs, changed lines, line ends."""

from __future__ import annotations

import pytest

from runtime_image.djinn_runtime.clip import Clip, cut
from runtime_image.djinn_runtime.retry import Again, Failure, GiveUp, decide, retry_after_seconds
from runtime_image.djinn_runtime.sse import MAX_EVENT_BYTES, EventTooLarge, events
from runtime_image.djinn_runtime.tools.content import changed_lines
from runtime_image.djinn_runtime.tools.edit import fitted
from runtime_image.djinn_runtime.tools.walk import matches

STREAMS = [
    (b"data: a\n\ndata: b\n\n", ["a", "b"]),
    (b"data: a\r\n\r\ndata: b\r\n\r\n", ["a", "b"]),
    (b"data: a\r\rdata: b\r\r", ["a", "b"]),
    (b"data:a\ndata: b\n\n", ["a\nb"]),
    (b"data: a\r\ndata: b\r\n\r\n", ["a\nb"]),
    (b": comment\nid: 1\nevent: x\ndata: a\n\n", ["a"]),
    (b"data: a\n\ndata: cut", ["a"]),
    (b"\n\n\n", []),
    (b"data\n\n", [""]),
]


@pytest.mark.parametrize(("content", "expected"), STREAMS)
@pytest.mark.parametrize("size", [1, 2, 100])
def test_events_are_read_whatever_the_chunks(content: bytes, expected: list[str], size: int) -> None:
    assert list(events(content[start : start + size] for start in range(0, len(content), size))) == expected


@pytest.mark.parametrize("piece", [b"x" * 65536, b"data: " + b"x" * 65536 + b"\n"], ids=["line", "event"])
def test_an_event_without_end_is_refused(piece: bytes) -> None:
    with pytest.raises(EventTooLarge):
        list(events(piece for _ in range(2 + MAX_EVENT_BYTES // 65536)))


@pytest.mark.parametrize(
    ("text", "size", "expected"),
    [
        ("abc", 3, "abc"),
        ("abcdef", 4, "ab\n[... 2 bytes cut ...]\nef"),
        ("", 4, ""),
        ("\u00e4" * 4, 5, "\u00e4\n[... 3 bytes cut ...]\n\u00e4"),
    ],
)
def test_a_text_is_cut_in_the_middle(text: str, size: int, expected: str) -> None:
    assert cut(text, size) == expected


@pytest.mark.parametrize("size", [1, 3, 64])
def test_a_clip_does_not_depend_on_the_pieces(size: int) -> None:
    text = bytes(range(65, 91)) * 3
    clip = Clip(20)
    for start in range(0, len(text), size):
        clip.add(text[start : start + size])
    assert clip.text() == cut(text.decode(), 20)


LIMITED = Failure("slow down", 429, kind="rate_limited")
PASSING = [Failure("x"), Failure("x", 429), Failure("x", 503), Failure("x", 529), LIMITED]


@pytest.mark.parametrize("failure", PASSING)
@pytest.mark.parametrize("attempt", [1, 5, 100, 10_000])
def test_a_passing_failure_is_tried_again_for_ever(failure: Failure, attempt: int) -> None:
    decision = decide(failure, attempt, 0, 1.0)
    assert isinstance(decision, Again)
    assert 0 < decision.seconds <= (10 if failure.status is None else 60)


BROKE_OFF = Failure("x", 502, is_doubtful=True, kind="broke_off")
DOUBTFUL = [
    Failure("x", 500),
    Failure("x", 502),
    Failure("x", 504),
    Failure("x", 408),
    Failure("x", is_doubtful=True),
    BROKE_OFF,
]


@pytest.mark.parametrize("failure", DOUBTFUL)
def test_a_doubtful_failure_is_tried_five_times(failure: Failure) -> None:
    assert failure.counts
    decisions = [decide(failure, 100 + doubts, doubts, 0.0) for doubts in range(1, 6)]
    assert ([type(each) for each in decisions[:4]], decisions[4]) == ([Again] * 4, GiveUp("model"))


PERMANENT = [("key_refused", "rejected"), ("unknown_model", "rejected"), ("too_long", "model"), ("gave_up", "model")]


@pytest.mark.parametrize(("kind", "reason"), PERMANENT)
def test_a_permanent_failure_is_not_tried_again(kind: str, reason: str) -> None:
    assert decide(Failure("x", 400, kind=kind, is_permanent=True), 1, 0, 0.0) == GiveUp(reason)


def test_a_stated_wait_is_kept() -> None:
    assert decide(Failure("x", 503, "7"), 1, 0, 0.5) == Again(7.0)


DATES = [
    ("3", 3.0),
    ("0", 0.0),
    ("-1", 0.0),
    ("1.5", 1.5),
    ("1e99", 3600.0),
    ("nan", None),
    ("", None),
    ("soon", None),
    ("Thu, 01 Jan 1970 00:01:40 GMT", 90.0),
    ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
]


@pytest.mark.parametrize(("text", "expected"), DATES)
def test_retry_after_is_seconds_or_a_date(text: str, expected: float | None) -> None:
    assert retry_after_seconds(text, now=10.0) == expected


GLOBS = [
    ("*.py", "a/b.py", True),
    ("*.py", "a/b.pyc", False),
    ("a/*.py", "a/b.py", True),
    ("a/*.py", "a/b/c.py", False),
    ("**/c.py", "c.py", True),
    ("**/c.py", "a/b/c.py", True),
    ("a/**/c.py", "a/c.py", True),
    ("a/**", "a/b/c", True),
    ("a/**/**/c", "a/b/c", True),
    ("[ab].txt", "b.txt", True),
    ("/a/b", "a/b", True),
]


@pytest.mark.parametrize(("pattern", "path", "expected"), GLOBS)
def test_globs_match(pattern: str, path: str, expected: bool) -> None:
    assert matches(pattern, path) is expected


CHANGES = [
    ("", "a b", (2, 0)),
    ("a b", "", (0, 2)),
    ("a b c", "a x c", (1, 1)),
    ("a b c", "a b c d", (1, 0)),
    ("a b c d e", "x b c d y", (2, 2)),
    ("a a", "a a a", (1, 0)),
    ("a", "a", (0, 0)),
]


@pytest.mark.parametrize(("before", "after", "expected"), CHANGES)
def test_changed_lines_are_counted(before: str, after: str, expected: tuple[int, int]) -> None:
    assert changed_lines(before.split(), after.split()) == expected


LINE_ENDS = [
    ("a\nb", "a\nb", "x\ny", ("a\nb", "x\ny")),
    ("a\r\nb", "a\nb", "x\ny", ("a\r\nb", "x\r\ny")),
    ("a\r\nb", "a\r\nb", "x\ny", ("a\r\nb", "x\ny")),
    ("a\r\nb", "a", "x\ny", ("a", "x\r\ny")),
]


@pytest.mark.parametrize(("text", "old", "new", "expected"), LINE_ENDS)
def test_line_ends_are_fitted_to_the_file(text: str, old: str, new: str, expected: tuple[str, str]) -> None:
    assert fitted(text, old, new) == expected
