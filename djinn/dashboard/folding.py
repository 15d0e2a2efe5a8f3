"""From events to blocks of the log: one fold, for the page and for what a socket appends to it.

Neighbouring deltas of the same kind are one block. An agent's `message` repeats the text that came in deltas and only
ends their block; it is shown when no delta came before it. What the fold decides about an event depends only on the
events before it, so a page that grew live and one that was loaded anew show the same.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from djinn.dashboard.entries import Entry, entry_of, is_retry, step_run_of
from djinn.events.log import LoggedEvent
from djinn.executions.retries import retry_of

PAUSE = timedelta(seconds=10)

Place = int | None
"""The step run in whose section something stands; None for beside the sections."""


@dataclass
class Block:
    """An entry and the text that later entries of its kind added."""

    entry: Entry
    pieces: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return self.entry.text + "".join(self.pieces)


@dataclass(frozen=True)
class Change:
    """What an event does to the log: open a section, continue the last block of its place, or begin one."""

    place: Place
    entry: Entry
    opens: bool
    joins: bool


class Fold:
    """What has to be remembered between two events."""

    def __init__(self) -> None:
        self._last: dict[Place, tuple[str, datetime]] = {}
        self._spoken: set[Place] = set()

    def copy(self) -> Fold:
        """A fold that goes on from here by itself."""
        other = Fold()
        other._last, other._spoken = dict(self._last), set(self._spoken)
        return other

    def take(self, event: LoggedEvent) -> Change | None:
        """What the event changes; None for a message that was shown already or has no text, and for a call that went
        through without having failed."""
        place, entry = step_run_of(event), entry_of(event)
        joins = self._joins(place, entry)
        if is_retry(event) and not joins and retry_of(event.data) is None:
            return None
        self._last[place] = entry.joins, entry.at
        if event.type == "text":
            self._spoken.add(place)
        if event.type == "message":
            is_repeated = place in self._spoken
            self._spoken.discard(place)
            if is_repeated or not entry.text:
                return None
        return Change(place, entry, opens=place is not None and _is_first(event), joins=joins)

    def _joins(self, place: Place, entry: Entry) -> bool:
        """Whether the entry goes on with the last block; output after a pause has a time of its own."""
        last, at = self._last.get(place, ("", entry.at))
        is_late = entry.shape == "output" and entry.at - at > PAUSE
        return bool(entry.joins) and place is not None and last == entry.joins and not is_late

    def take_all(self, events: Iterable[LoggedEvent]) -> list[Change]:
        """What the events change, in their order."""
        return [change for event in events if (change := self.take(event))]


def _is_first(event: LoggedEvent) -> bool:
    """Whether it is the first event of its step run: it was queued, skipped, or failed without having been queued."""
    return event.type in ("step_queued", "step_skipped") or (
        event.type == "step_finished" and event.data.get("was_queued") is False
    )


@dataclass
class Section:
    """The blocks of one step run; or, for `step_run` None, those between two sections."""

    step_run: Place
    blocks: list[Block] = field(default_factory=list)


def sections_of(changes: Iterable[Change], *, before: Iterable[int] = ()) -> list[Section]:
    """The whole log as a page shows it: the sections that were there `before`, then what the changes opened."""
    sections = [Section(step_run) for step_run in before]
    known: dict[Place, Section] = {section.step_run: section for section in sections}
    for change in changes:
        section = sections[-1] if change.place is None and sections else known.get(change.place)
        if section is None or section.step_run != change.place:
            section = Section(change.place)
            sections.append(section)
            known[change.place] = section
        _add(section.blocks, change)
    return sections


@dataclass
class Patch:
    """What is appended in one go: to a place, blocks behind `joined`, which continues the last block that is there."""

    place: Place
    opens: bool = False
    joined: str = ""
    blocks: list[Block] = field(default_factory=list)


def patches_of(changes: Iterable[Change]) -> list[Patch]:
    """The changes as patches to a page that shows everything before them; neighbours of one place are one patch."""
    patches: list[Patch] = []
    for change in changes:
        if not patches or patches[-1].place != change.place or change.opens:
            patches.append(Patch(change.place, opens=change.opens))
        patch = patches[-1]
        if change.joins and not patch.blocks:
            patch.joined += change.entry.text
        else:
            _add(patch.blocks, change)
    return patches


def _add(blocks: list[Block], change: Change) -> None:
    if change.joins and blocks:
        blocks[-1].pieces.append(change.entry.text)
    else:
        blocks.append(Block(change.entry))
