"""Whether what was wanted came about: each run once, and each ended as its pipeline says."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tests.faults.seen import Violation
from tests.stack.live import Row

MOST_LOSSES = 5
"""How often a step may lose its container; the fifth time the run ends."""
AFTERMATH_SECONDS = 10.0
"""How long a run that began behind a full disk may still meet it."""
ENDS = {"hungry": ("failed", "out_of_memory")}
"""Status and reason of the pipelines that do not succeed."""


@dataclass
class Excuses:
    """What was done to runs, and is a reason to end otherwise. Times in seconds of this machine's clock."""

    cancelled: set[int] = field(default_factory=set)
    """Runs that may have been cancelled: the answer may be lost."""
    disk_full: list[tuple[float, float]] = field(default_factory=list)
    """From when to when the workspaces' disk was full."""
    losses: list[float] = field(default_factory=list)
    """When an engine or a container was hurt."""

    def cover(self, row: Row) -> bool:
        """Whether they explain how the run ended."""
        began, ended = row["created_at"].timestamp(), row["ended_at"].timestamp()
        if row["status"] == "cancelled":
            return row["id"] in self.cancelled
        if row["reason"] in {"disk", "error"}:  # a script whose write fails says no more than "error"
            return any(since < ended and until + AFTERMATH_SECONDS > began for since, until in self.disk_full)
        if row["reason"] == "lost":
            return sum(began <= at <= ended for at in self.losses) >= MOST_LOSSES
        return False


def wrong_intents(
    wanted: Mapping[int, tuple[str, int]], existing: Sequence[int], failures: Sequence[str]
) -> Iterator[Violation]:
    """Each run that was wanted exists once, and no other does. `wanted` is pipeline and run by the intent."""
    for text in failures:
        yield Violation("intent", "stack", text)
    counts = Counter(run for _, run in wanted.values())
    for run, count in sorted(counts.items()):
        if count > 1:
            yield Violation("intent", f"run {run}", f"was given to {count} who each wanted a run of their own")
    for run in sorted(set(existing) - set(counts)):
        yield Violation("intent", f"run {run}", "nobody wanted it")
    for run in sorted(set(counts) - set(existing)):
        yield Violation("intent", f"run {run}", "was acknowledged and does not exist")


def wrong_outcomes(rows: Sequence[Row], wanted: Mapping[int, tuple[str, int]], excuses: Excuses) -> Iterator[Violation]:
    """A run ends as its pipeline says, unless what was done to it is a reason to end otherwise."""
    names = {run: name for name, run in wanted.values()}
    for row in rows:
        name = names.get(row["id"], "")
        if (row["status"], row["reason"]) != ENDS.get(name, ("succeeded", "")) and not excuses.cover(row):
            text = f"{name} ended {row['status']} ({row['reason']}: {row['message'][:300]})"
            yield Violation("outcome", f"run {row['id']}", text)
