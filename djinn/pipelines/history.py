"""What has happened in a run, as the flow sees it, and what the flow may decide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal

from djinn.pipelines.schema import JSON


class Status(StrEnum):
    """Where a step run is."""

    QUEUED = "queued"
    RUNNING = "running"
    WAITING = "waiting"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"

    @property
    def is_final(self) -> bool:
        return self not in (Status.QUEUED, Status.RUNNING, Status.WAITING)


@dataclass(frozen=True)
class Past:
    """One step run; a history holds them in the order of creation, and the first one's number is 1.

    `item` is the index of the item that it is for, `2.0` in a loop within a loop, empty outside of loops. `bases` are
    the numbers of the step runs whose files it began with.
    """

    step: str
    visit: int
    attempt: int
    status: Status
    reason: str = ""
    outputs: Mapping[str, JSON] = field(default_factory=dict)
    item: str = ""
    item_value: JSON = None
    bases: tuple[int, ...] = ()


History = Sequence[Past]


@dataclass(frozen=True)
class Start:
    """A step run to create; it may begin after `delay_seconds`."""

    step: str
    visit: int
    attempt: int
    delay_seconds: float
    because: str
    item: str = ""
    item_value: JSON = None
    bases: tuple[int, ...] = ()
    lane: str = ""


@dataclass(frozen=True)
class Skip:
    """A step that the flow passes by. `item_value` is an empty list when there were no items to run it for."""

    step: str
    visit: int
    because: str
    item: str = ""
    item_value: JSON = None
    bases: tuple[int, ...] = ()


@dataclass(frozen=True)
class Refuse:
    """A step that cannot start: a step run that fails at once."""

    step: str
    visit: int
    attempt: int
    reason: str
    message: str
    item: str = ""
    bases: tuple[int, ...] = ()


@dataclass(frozen=True)
class Tell:
    """Something to tell an agent. `message` is a template; `source` the number of the step run that said so."""

    agent: str
    message: str
    source: int


@dataclass(frozen=True)
class Finish:
    """The run is over."""

    status: Literal["succeeded", "failed", "cancelled"]
    reason: str
    message: str
    step: str = field(default="", compare=False)
    """The step whose failure ends it; empty when it is none's."""
    item: str = field(default="", compare=False)


@dataclass(frozen=True)
class Blocker:
    """One thing that has to go away before a step starts: a `step` has to end, a place has to become free, a person has
    to resume."""

    kind: Literal["step", "pause", "cancel", "parallel"]
    text: str
    step: str = ""
    item: str = ""


@dataclass(frozen=True)
class Blocked:
    """Something that does not start now, and why. When exactly the blockers go away, it starts or is decided on."""

    step: str
    because: str
    item: str = ""
    blockers: tuple[Blocker, ...] = ()


Decision = Start | Skip | Refuse | Tell | Finish | Blocked


def named(step: str, item: str) -> str:
    """The step as people read it: `TEST`, or `TEST[2]` for an item."""
    return f"{step}[{item}]" if item else step


def tries_of(history: History, step: str, item: str, visit: int) -> list[Past]:
    """The attempts of one visit, in their order."""
    return [past for past in history if (past.step, past.item, past.visit) == (step, item, visit)]


def visits_of(history: History, step: str, item: str) -> int:
    """How often the flow has come to the step for this item."""
    return max((past.visit for past in history if past.step == step and past.item == item), default=0)
