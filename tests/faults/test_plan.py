"""The plan of a storm: a function of its seed and nothing else."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections import Counter

from djinn.core.installation.paths import PROJECT
from tests.faults.levers import LEVERS
from tests.faults.plan import KINDS, LONGEST_PAUSE, SHORTEST_PAUSE, Fault, faults, pipelines

MANY = 2000


def beginning(seed: int, count: int = MANY) -> list[Fault]:
    return list(itertools.islice(faults(seed), count))


def printed(seed: int) -> list[str]:
    command = [sys.executable, "-m", "tests.faults", "--plan", "--seed", str(seed), "--faults", "30"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.splitlines()


def test_the_same_seed_gives_the_same_plan() -> None:
    assert beginning(7) == beginning(7)


def test_another_seed_gives_another_plan() -> None:
    assert beginning(7, 20) != beginning(8, 20)


def test_a_longer_plan_begins_like_a_shorter_one() -> None:
    assert beginning(7, 50) == beginning(7, 500)[:50]


def test_two_processes_print_the_same_plan_for_the_same_seed() -> None:
    first = printed(7)
    assert len(first) == 30
    assert first == printed(7)
    assert first != printed(8)


def test_every_kind_comes_once_before_any_comes_again() -> None:
    assert {fault.kind for fault in beginning(7, len(KINDS))} == set(KINDS)


def test_kinds_that_cannot_be_done_are_not_planned() -> None:
    wanted = ["web_killed", "redis_flushed"]
    assert {fault.kind for fault in itertools.islice(faults(7, kinds=wanted), 50)} == set(wanted)


def test_the_weights_decide_what_comes_often() -> None:
    counts = Counter(fault.kind for fault in beginning(7))
    assert counts["agents_killed"] > counts["web_killed"] > counts["all_killed"]


def test_every_fault_has_its_pause_and_lasts_as_its_kind_says() -> None:
    for fault in beginning(7):
        kind = KINDS[fault.kind]
        assert SHORTEST_PAUSE <= fault.after <= LONGEST_PAUSE
        assert kind.shortest <= fault.seconds <= kind.longest
        assert 0 <= fault.draw < 1


def test_every_kind_has_a_lever_and_every_lever_a_kind() -> None:
    assert set(LEVERS) == set(KINDS)


def test_the_same_seed_starts_the_same_pipelines_and_each_as_often_as_the_others() -> None:
    first = list(itertools.islice(pipelines(7, ["a", "b", "c"]), 30))
    assert first == list(itertools.islice(pipelines(7, ["c", "b", "a"]), 30))
    assert set(Counter(first).values()) == {10}
