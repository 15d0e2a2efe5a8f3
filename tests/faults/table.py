"""What a storm has shown, as a table: fault, injected, survived, recovery, lost, doubled, orphans."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from tests.faults.seen import Violation

DOUBLED = frozenset({"I1", "I3"})
ORPHANS = frozenset({"I6", "I11"})
LOST = frozenset({"I4", "I5", "I9", "outcome", "intent"})
HEADINGS = ("fault", "injected", "survived", "recovery p50", "p99", "lost", "doubled", "orphans", "other")
_SUBJECT = re.compile(r"(run|step run|execution) (\d+)")


@dataclass(frozen=True)
class Injection:
    """A fault that was done: when, in seconds of this machine's clock, and the runs that it touched."""

    kind: str
    at: float
    runs: frozenset[int]


@dataclass(frozen=True)
class Row:
    """One line of the table. `recovery` are the seconds of each touched run until its next event, in order."""

    fault: str
    injected: int
    survived: int
    recovery: tuple[float, ...]
    lost: int
    doubled: int
    orphans: int
    other: int

    def cells(self) -> tuple[str, ...]:
        counts = (self.lost, self.doubled, self.orphans, self.other)
        spans = (_seconds(self.recovery, 0.5), _seconds(self.recovery, 0.99))
        return (self.fault, str(self.injected), str(self.survived), *spans, *map(str, counts))


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest of the sorted values that at least this share does not exceed (nearest rank)."""
    return values[max(0, math.ceil(share * len(values)) - 1)]


def recovery(injection: Injection, events: Mapping[int, Sequence[float]]) -> list[float]:
    """How long after the fault each touched run went on; `events` are the times of each run's events, in order."""
    found = []
    for run in injection.runs:
        following = [at for at in events.get(run, ()) if at > injection.at]
        if following:
            found.append(following[0] - injection.at)
    return found


def run_of(violation: Violation, *, steps: Mapping[int, int], executions: Mapping[int, int]) -> int | None:
    """The run that a violation is about, by its step run or execution too; None when it is about the whole stack."""
    match = _SUBJECT.fullmatch(violation.subject)
    if match is None:
        return None
    number = int(match[2])
    return {"run": {number: number}, "step run": steps, "execution": executions}[match[1]].get(number)


def rows(
    kinds: Collection[str],
    injections: Sequence[Injection],
    events: Mapping[int, Sequence[float]],
    violations: Sequence[tuple[int | None, Violation]],
) -> list[Row]:
    """A line for each kind, also for one that was never done, and one for all.

    A violation counts in the line of every kind that has touched its run, and once in the line of all.
    """
    return [
        *(_row(kind, [one for one in injections if one.kind == kind], events, violations) for kind in sorted(kinds)),
        _row("all", list(injections), events, violations, has_whole_stack=True),
    ]


def _row(
    name: str,
    injections: list[Injection],
    events: Mapping[int, Sequence[float]],
    violations: Sequence[tuple[int | None, Violation]],
    *,
    has_whole_stack: bool = False,
) -> Row:
    touched = frozenset[int]().union(*(one.runs for one in injections))
    broken = {run for run, _ in violations if run is not None}
    names = [one.invariant for run, one in violations if run in touched or has_whole_stack]
    spans = sorted(span for one in injections for span in recovery(one, events))
    known = (LOST, DOUBLED, ORPHANS)
    lost, doubled, orphans = (sum(name in group for name in names) for group in known)
    return Row(
        fault=name,
        injected=len(injections),
        survived=sum(not one.runs & broken for one in injections),
        recovery=tuple(spans),
        lost=lost,
        doubled=doubled,
        orphans=orphans,
        other=len(names) - lost - doubled - orphans,
    )


def as_text(lines: Sequence[Row], *, skipped: Mapping[str, str]) -> str:
    """The table with aligned columns; below it, each kind that could not be done here, and why."""
    cells = [HEADINGS, *(line.cells() for line in lines)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(HEADINGS))]
    text = [
        "  ".join(cell.ljust(width) if not column else cell.rjust(width)
                  for column, (cell, width) in enumerate(zip(line, widths, strict=True)))
        for line in cells
    ]  # fmt: skip
    text.insert(1, "-" * len(text[0]))
    text.insert(len(text) - 1, "-" * len(text[0]))
    text += [f"not done: {kind}: {why}" for kind, why in sorted(skipped.items())]
    return "\n".join(text)


def _seconds(values: Sequence[float], share: float) -> str:
    return f"{percentile(values, share):.2f} s" if values else "-"
