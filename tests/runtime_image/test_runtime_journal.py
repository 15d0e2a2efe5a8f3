"""The journal's writer on its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from execution_double import records

from runtime_image.djinn_runtime.journal import Journal, JournalStopped
from runtime_image.djinn_runtime.reserve import Reserve

Told = list[tuple[str, str]]


@pytest.fixture
def told() -> Told:
    """What the journal said when it could not go on."""
    return []


@pytest.fixture
def journal(place: Path, told: Told) -> Iterator[Journal]:
    """A journal of 200,000 bytes at most."""
    journal = Journal(str(place / "j"), 200_000, Reserve(str(place)), lambda *why: told.append(why))
    yield journal
    journal.seal()


def _append_for_ever(journal: Journal) -> None:
    while True:
        journal.append("log", message="x" * 20)


def _fill(journal: Journal) -> None:
    with pytest.raises(JournalStopped):
        _append_for_ever(journal)


def test_the_last_record_is_whole_when_the_journal_is_full(journal: Journal, place: Path) -> None:
    _fill(journal)
    journal.finish({"outputs": {"A": "x" * 60_000}}, {})
    assert len(records((place / "j").read_bytes())[-1].data["outputs"]["A"]) == 60_000


def test_a_full_journal_says_so_once(journal: Journal, told: Told) -> None:
    _fill(journal)
    _fill(journal)
    assert [reason for reason, _ in told] == ["output_limit"]


def test_a_sealed_journal_takes_nothing_but_the_end(journal: Journal, place: Path) -> None:
    journal.stream("text", "before")
    journal.seal()
    with pytest.raises(JournalStopped):
        journal.append("log", message="late")
    journal.finish({}, {})
    assert [record.type for record in records((place / "j").read_bytes())] == ["text", "finished"]


def test_neighbours_are_joined_and_others_are_not(journal: Journal, place: Path) -> None:
    for stream in ("stdout", "stdout", "stderr", "stdout"):
        journal.stream("output", "x", stream=stream)
    journal.seal()
    texts = [record.data["text"] for record in records((place / "j").read_bytes())]
    assert texts == ["xx", "x", "x"]


def test_a_piece_of_any_size_is_recorded_whole(journal: Journal, place: Path) -> None:
    text = "\x01" * 20_000
    journal.stream("output", text, stream="stdout")
    journal.seal()
    assert "".join(record.data["text"] for record in records((place / "j").read_bytes())) == text


def test_the_reserve_is_gone_after_the_end(journal: Journal, place: Path) -> None:
    journal.finish({}, {})
    assert not (place / "reserve").exists()
