"""Named crash points in our own code, so that tests can end, stop or fail a process at exactly that moment.

    DJINN_FAULTS=relay.before_commit=kill9@3,relay.before_commit=kill9@9,hint.before_publish=raise

Without that variable `fault()` is one look into an empty dict. With it, each hit of a named point is counted in a file
of the installation, over all its processes and restarts, and the rule whose `@n` (1 when it is left out) is that
number fires: the count is on the disk before anything happens, so a rule fires once. Actions: `kill9`, `raise`,
`sleep:SECONDS`, and `stop:SECONDS`, which is SIGSTOP; whoever reads the count sends SIGCONT.
"""

from __future__ import annotations

import fcntl
import os
import re
import signal
import time
from dataclasses import dataclass
from pathlib import Path

from djinn.core.errors import AppError
from djinn.core.installation.paths import present_installation

VARIABLE = "DJINN_FAULTS"
FOLDER = "faults"

POINTS = frozenset(
    {
        "start_run.before_commit",
        "start_run.after_commit",
        "cancel.before_commit",
        "cancel.after_commit",
        "turn.before_events",
        "turn.before_commit",
        "advance.after_commit",
        "step.created",
        "step.prepared",
        "step.rung",
        "prepare.before_commit",
        "running.before_commit",
        "settle.before_commit",
        "settle.after_commit",
        "crash.before_commit",
        "claim.before",
        "claim.after",
        "workspace.made",
        "brief.written",
        "launch.written",
        "container.before_create",
        "container.created",
        "container.started",
        "relay.before_first_batch",
        "relay.offset_written",
        "relay.before_commit",
        "relay.after_commit",
        "relay.outcome_shipped",
        "conclude.before_snapshot",
        "conclude.after_snapshot",
        "conclude.before_commit",
        "conclude.after_commit",
        "stop.before",
        "stop.after",
        "stop.requested",
        "unwanted.before_stop",
        "collect.before_remove",
        "collect.after_remove",
        "give_up.before",
        "give_up.after",
        "sweep.before_ring",
        "sweep.before_send",
        "hint.before_publish",
        "sse.before_flush",
        "gateway.before_open_call",
        "gateway.after_open_call",
        "gateway.before_close_call",
    }
)
"""Every point there is, each in one place of the code."""

_RULE = re.compile(
    r"(?P<name>[a-z_.0-9]+)=(?P<action>[a-z0-9]+)(?::(?P<seconds>\d+(?:\.\d+)?))?(?:@(?P<hit>[1-9]\d*))?"
)
_TIMED, _PLAIN = frozenset({"stop", "sleep"}), frozenset({"kill9", "raise"})


class InjectedFault(AppError):
    """What the action `raise` raises."""


@dataclass(frozen=True)
class Rule:
    """What happens at one hit of a point: `action` at the hit number `hit`, counted from 1."""

    action: str
    seconds: float
    hit: int

    def __str__(self) -> str:
        return f"{self.action}:{self.seconds:g}" if self.action in _TIMED else self.action


Rules = dict[str, tuple[Rule, ...]]


def parse(text: str) -> tuple[Rules, list[str]]:
    """The rules in the variable's text by point, and what is wrong with the others."""
    rules: Rules = {}
    problems = []
    for item in filter(None, (part.strip() for part in text.split(","))):
        match = _RULE.fullmatch(item)
        if match is None:
            problems.append(f"{item!r} is not name=action[:seconds][@hit]")
        elif match["name"] not in POINTS:
            problems.append(f"there is no crash point {match['name']!r}")
        elif match["action"] not in (_TIMED if match["seconds"] else _PLAIN):
            problems.append(f"{item!r}: an action is kill9, raise, stop:SECONDS or sleep:SECONDS")
        else:
            rule = Rule(match["action"], float(match["seconds"] or 0), int(match["hit"] or 1))
            rules[match["name"]] = (*rules.get(match["name"], ()), rule)
    return rules, problems


_rules, PROBLEMS = parse(os.environ.get(VARIABLE, ""))


def fault(name: str) -> None:
    """A crash point: nothing happens here unless the environment says so. Raises `InjectedFault` for `raise`."""
    rules = _rules.get(name)
    if rules is not None:
        _hit(present_installation().home / FOLDER / name, rules)


def _hit(path: Path, rules: tuple[Rule, ...]) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with path.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        number = sum(1 for _ in file) + 1
        rule = next((rule for rule in rules if rule.hit == number), None)
        file.write(f"{number} {os.getpid()} {rule or '-'}\n")
        file.flush()
        os.fsync(file.fileno())
    if rule is not None:
        _act(path.name, rule)


def _act(name: str, rule: Rule) -> None:
    if rule.action == "sleep":
        time.sleep(rule.seconds)
    elif rule.action == "raise":
        raise InjectedFault(f"injected at {name}")
    else:
        os.kill(os.getpid(), signal.SIGKILL if rule.action == "kill9" else signal.SIGSTOP)
