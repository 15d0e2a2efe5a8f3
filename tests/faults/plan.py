"""What a storm will do: a pure function of its seed. The same seed gives the same faults in the same order."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator
from dataclasses import dataclass

SHORTEST_PAUSE, LONGEST_PAUSE = 0.4, 1.1


@dataclass(frozen=True)
class Kind:
    """A sort of fault: how often it comes in relation to the others, how long it lasts in seconds, what it is of."""

    weight: float
    shortest: float = 0.0
    longest: float = 0.0
    needs: str = ""
    """`engine`: a Docker engine of the storm's own. `clock`: libfaketime."""


KINDS: dict[str, Kind] = {
    "agents_killed": Kind(10),
    "control_killed": Kind(8),
    "web_killed": Kind(5),
    "gateway_killed": Kind(4),
    "beat_killed": Kind(2),
    "several_killed": Kind(3),
    "all_killed": Kind(1),
    "power_cut": Kind(0.4),
    "agents_redeployed": Kind(5),
    "control_redeployed": Kind(3),
    "agents_suspended": Kind(5, 1.2, 3.0),
    "control_suspended": Kind(2, 1.2, 3.0),
    "redis_flushed": Kind(6),
    "redis_killed": Kind(4),
    "redis_hung": Kind(2, 2.0, 7.0),
    "redis_clients_cut": Kind(5),
    "redis_subscribers_cut": Kind(3),
    "redis_full": Kind(2, 1.0, 4.0),
    "postgres_crashed": Kind(4),
    "postgres_backends_ended": Kind(5),
    "commit_answer_lost": Kind(12),
    "write_answer_lost": Kind(8),
    "postgres_slow": Kind(3, 1.0, 4.0),
    "postgres_silent": Kind(1.5, 2.0, 8.0),
    "postgres_connections_reset": Kind(4),
    "postgres_refuses": Kind(2, 1.0, 4.0),
    "engine_killed": Kind(2.5, 0.5, 5.0, "engine"),
    "engine_killed_with_containers": Kind(0.5, 0.5, 3.0, "engine"),
    "engine_stopped": Kind(0.7, 0.5, 3.0, "engine"),
    "engine_suspended": Kind(1.5, 1.0, 6.0, "engine"),
    "engine_away_while_containers_exit": Kind(1.2, 6.0, 9.0, "engine"),
    "container_killed": Kind(4),
    "container_removed": Kind(2),
    "container_out_of_memory": Kind(1.5),
    "messages_doubled": Kind(6),
    "messages_stale": Kind(5),
    "clock_ahead": Kind(0.8, 8.0, 12.0, "clock"),
    "clock_behind": Kind(0.8, 8.0, 12.0, "clock"),
    "disk_full": Kind(1.2, 0.5, 2.5),
    "run_cancelled": Kind(3),
    "crash_point": Kind(4, 8.0, 12.0),
}
"""Every kind. A suspended worker's seconds are multiples of the lease."""


@dataclass(frozen=True)
class Fault:
    """One entry of the plan: `after` seconds behind the one before it."""

    number: int
    after: float
    kind: str
    seconds: float
    draw: float
    """0 to 1: chooses the victim among those that there are then."""

    def __str__(self) -> str:
        lasts = f"{self.seconds:5.2f}" if self.seconds else "    -"
        return f"{self.number:6d}  +{self.after:4.2f} s  {self.kind:<34} {lasts}  {self.draw:.6f}"


def faults(seed: int, *, kinds: Collection[str] = tuple(KINDS)) -> Iterator[Fault]:
    """The plan, without an end. Every kind comes once, in some order, before any comes again by its weight."""
    chance = random.Random(seed)
    names = sorted(kinds)
    weights = [KINDS[name].weight for name in names]
    first = chance.sample(names, len(names))
    number = 0
    while True:
        number += 1
        kind = first.pop() if first else chance.choices(names, weights)[0]
        lasts = chance.uniform(KINDS[kind].shortest, KINDS[kind].longest)
        pause = chance.uniform(SHORTEST_PAUSE, LONGEST_PAUSE)
        yield Fault(number, round(pause, 3), kind, round(lasts, 3), round(chance.random(), 6))


def pipelines(seed: int, names: Collection[str]) -> Iterator[str]:
    """Which pipeline is started next, without an end: independent of how many faults the plan has."""
    chance = random.Random(f"pipelines of {seed}")
    choices = sorted(names)
    while True:
        yield from chance.sample(choices, len(choices))
