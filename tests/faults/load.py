"""What runs during a storm: pipelines whose last step checks what the others did, and somebody who wants them run."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import psycopg

from djinn.pipelines.loader import load_text
from tests.faults.harness import pipeline, revisiting, step
from tests.faults.stage import Stage

HUNGRY = "hungry"
"""The pipeline that fails for want of memory; only a fault starts it."""
START_SECONDS = 300.0
LOOK_SECONDS = 0.2

PACE = {"things": 4, "seconds": 0.3}


def trail(name: str) -> str:
    """Leave a mark in the workspace: a step that was done twice in it, or lost from it, shows."""
    return f"echo {name} >> trail"


def check(*names: str) -> str:
    """Fail unless the workspace has exactly these marks, in this order."""
    return f'[ "$(tr "\\n" " " < trail)" = "{" ".join(names)} " ] || {{ echo "the trail is:"; cat trail; exit 1; }}'


def linear() -> str:
    """Three steps in a row, each of which adds to the workspace and to a number."""
    steps = [step(name, then=f"{trail(name)}\necho N={number} >> $DJINN_OUTPUT", outputs=["N"], **PACE)
             for number, name in enumerate(("ONE", "TWO"), 1)]  # fmt: skip
    last = step("LAST", then="[ {{ N | quote }} = 2 ] || exit 1\n" + check("ONE", "TWO"), **PACE)
    return pipeline(*steps, last, name="Linear")


def looping() -> str:
    """A loop over a list with a chain for each item, and a step behind the last one."""
    plan = step("PLAN", then="echo 'ITEMS=[\"a\", \"b\", \"c\"]' >> $DJINN_OUTPUT", outputs=["ITEMS"],
                onComplete="EACH", **PACE)  # fmt: skip
    each = step("EACH", then="echo {{ current_item | quote }} >> trail",
                loop={"over": "ITEMS", "onEachComplete": "CHECK", "onAllComplete": "END"}, **PACE)  # fmt: skip
    verdict = "tail -n 1 trail | grep -qx {{ current_item | quote }} || exit 1\necho V=next >> $DJINN_OUTPUT"
    look = step("CHECK", then=verdict, outputs=["V"], onResult={"next": {"continueLoop": True}}, **PACE)
    return pipeline(plan, each, look, step("END", then=check("a", "b", "c"), **PACE), name="Looping")


def parallel() -> str:
    """A fan over a list beside two branches, joined by one step that finds the files of all."""
    begin = step("BEGIN", then=trail("BEGIN"), **PACE)
    fan = step("FAN", then="echo {{ current_item | quote }} > fan-{{ current_item | quote }}", needs=["BEGIN"],
               foreach={"over": "[1, 2, 3]", "parallel": 2}, **PACE)  # fmt: skip
    left = step("LEFT", then="echo left > left", needs=["BEGIN"], **PACE)
    right = step("RIGHT", then="echo right > right", needs=["BEGIN"], **PACE)
    found = '[ "$(cat fan-1 fan-2 fan-3 left right | tr "\\n" " ")" = "1 2 3 left right " ] || { ls; exit 1; }'
    end = step("JOIN", then=f"{found}\n{check('BEGIN')}", needs=["FAN", "LEFT", "RIGHT"], **PACE)
    return pipeline(begin, fan, left, right, end, name="Parallel")


def hungry() -> str:
    """One step that needs more memory than it may have."""
    eat = step("EAT", things=1, then="tail /dev/zero", resources={"memory": "48m", "cpus": 1})
    return pipeline(eat, name="Hungry", defaults={"retries": {"max": 0}})


def all_pipelines() -> dict[str, str]:
    """The text of every pipeline that a storm runs, by its id."""
    return {
        "storm-linear": linear(),
        "storm-revisiting": revisiting(3, **PACE),
        "storm-looping": looping(),
        "storm-parallel": parallel(),
        HUNGRY: hungry(),
    }


def install(
    add: Callable[[str, str], object], *, only: Collection[str] | None = None, texts: Mapping[str, str] | None = None
) -> None:
    """Give each pipeline of a storm to `add`; raises `PipelineInvalid` for one that the product does not take."""
    for name, text in (texts or all_pipelines()).items():
        if not only or name in {*only, HUNGRY}:
            load_text(text, file=name)
            add(name, text)


class Load:
    """Keeps so many runs open, each wanted once; who wants one asks with the same key until the answer comes."""

    def __init__(self, stage: Stage, *, names: Iterator[str], width: int) -> None:
        self.runs: dict[int, tuple[str, int]] = {}
        """Pipeline and run by the number of the intent, once it was acknowledged."""
        self.failures: list[str] = []
        self._stage, self._names, self._width = stage, names, width
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._asking: list[threading.Thread] = []
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._keep_going, name="load", daemon=True)

    def begin(self) -> None:
        self._thread.start()

    def end(self) -> None:
        """Want nothing more, and wait for the answers that are still to come."""
        self._is_over.set()
        self._thread.join(START_SECONDS)
        for thread in self._asking:
            thread.join(START_SECONDS)

    def want(self, name: str) -> int:
        """Have a run of the pipeline started as soon as it can be; the number of the intent."""
        number = next(self._numbers)
        thread = threading.Thread(target=self._ask, args=(number, name), name=f"intent {number}", daemon=True)
        self._asking = [*(one for one in self._asking if one.is_alive()), thread]
        thread.start()
        return number

    @property
    def wanted(self) -> int:
        """How many runs were wanted and acknowledged, or are still asked for."""
        return len(self.runs) + sum(thread.is_alive() for thread in self._asking)

    def _ask(self, number: int, name: str) -> None:
        try:
            run = self._stage.intend(name, seconds=START_SECONDS)
        except AssertionError as exc:
            self.failures.append(f"intent {number} ({name}): {exc}")
        else:
            with self._lock:
                self.runs[number] = (name, run)

    def _keep_going(self) -> None:
        while not self._is_over.wait(LOOK_SECONDS):
            if sum(thread.is_alive() for thread in self._asking) + self._open() < self._width:
                self.want(next(self._names))

    def _open(self) -> int:
        query: Any = "SELECT count(*) FROM runs_run WHERE ended_at IS NULL"
        try:
            return int(self._stage.rows(query)[0]["count"])
        except psycopg.OperationalError:
            return self._width  # it cannot be known now
