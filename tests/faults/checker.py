"""The one checker of all fault tests: what must hold of a stack that is at rest, whatever was done to it.

    violations = check(stack, runs)

It reads the database, the audit table that a trigger feeds, the journals and side files that the stack's watch has
kept, the containers, the processes, and what the API tells. I7 of the plan, that each message to the outside is
delivered and can be told from its double, has nothing to look at: Djinn sends none yet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from tests.faults import content, order, outside
from tests.faults.harness import Watched
from tests.faults.seen import Seen, Violation, look

Invariant = Callable[[Seen], Iterator[Violation]]

INVARIANTS: dict[str, tuple[str, Invariant]] = {
    "I1": ("what has ended stays as it is, and ends once", order.final_is_final),
    "I2": ("nothing is written under a lease that somebody else has", order.only_holders_write),
    "I3": ("an execution's work begins once, and each try has one execution", content.work_begins_once),
    "I4": ("the log is the journals, record for record, and tells what was done", content.log_is_the_journals),
    "I5": ("at rest nothing is open without a cause", order.nothing_is_open),
    "I6": ("nothing starts after a cancel, nothing runs on behind an end", order.nothing_runs_on),
    "I8": ("lists over HTTP are the log, without gaps", outside.readers_see_the_log),
    "I9": ("a run's state follows from its step runs", outside.run_follows_from_steps),
    "I10": ("no secret is anywhere but where it belongs", outside.secrets_stay),
    "I11": ("nothing is left behind", outside.nothing_is_left),
    "I12": ("every failure has a reason of the closed list", order.failures_have_reasons),
}


def check(live: Watched, runs: Sequence[int]) -> list[Violation]:
    """Every violation of every invariant that these runs, or the stack as a whole, show now."""
    seen = look(live, runs)
    return [violation for _, invariant in INVARIANTS.values() for violation in invariant(seen)]
