"""The step runs of runs as the flow sees them.

What ended steps have left is read when the flow first looks at it, since it may be large and most decisions ask for
none of it: one row's where one value is asked for, all at once where they are gone through.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from djinn.pipelines.history import Past, Status
from djinn.runs.models import Run, StepRun

JSON = Any
PAST = ("step", "visit", "attempt", "status", "reason", "outputs", "item", "item_value", "bases")
READ = tuple(name for name in PAST if name != "outputs")


def history_of(run: Run) -> list[Past]:
    """The run's step runs as the flow sees them; the position of each, from 1, is its number."""
    return histories_of([run.pk])[run.pk]


def histories_of(runs: Sequence[int]) -> dict[int, list[Past]]:
    """The history of each of the runs, with one query."""
    left = _Left(runs)
    found: dict[int, list[Past]] = {run: [] for run in runs}
    rows = StepRun.objects.filter(run__in=runs).order_by("run_id", "number").values_list("pk", "run_id", *READ)
    for pk, run, step, visit, attempt, status, reason, item, value, bases in rows:
        is_final = Status(status).is_final
        outputs: Mapping[str, JSON] = _Outputs(left, pk) if is_final else {}
        found[run].append(Past(step, visit, attempt, Status(status), reason, outputs, item, value, tuple(bases)))
    return found


def past_of(step_run: StepRun) -> Past:
    """One step run as the flow sees it."""
    step, visit, attempt, status, reason, outputs, item, value, bases = (getattr(step_run, name) for name in PAST)
    return Past(step, visit, attempt, Status(status), reason, outputs, item, value, tuple(bases))


class _Left:
    """What the step runs of some runs have left."""

    def __init__(self, runs: Sequence[int]) -> None:
        self._runs = runs
        self._found: dict[int, dict[str, JSON]] = {}
        self._is_whole = False

    def of(self, pk: int) -> dict[str, JSON]:
        if len(self._runs) > 1:
            return self.all_of(pk)
        if pk not in self._found and not self._is_whole:
            self._found[pk] = StepRun.objects.values_list("outputs", flat=True).get(pk=pk)
        return self._found.get(pk, {})

    def all_of(self, pk: int) -> dict[str, JSON]:
        """The same, after all were read."""
        if not self._is_whole:
            rows = StepRun.objects.filter(run__in=self._runs).exclude(outputs={})
            self._found, self._is_whole = dict(rows.values_list("pk", "outputs")), True
        return self._found.get(pk, {})


class _Outputs(Mapping[str, JSON]):
    """One step run's outputs."""

    def __init__(self, left: _Left, pk: int) -> None:
        self._left, self._pk = left, pk

    def __getitem__(self, name: str) -> JSON:
        return self._left.of(self._pk)[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._left.all_of(self._pk))

    def __len__(self) -> int:
        return len(self._left.all_of(self._pk))

    def __repr__(self) -> str:
        return repr(dict(self))
