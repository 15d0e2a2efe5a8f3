"""What an approval asks and shows, computed from rows alone, and the digest of all that it stands on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from djinn.core.errors import UserError
from djinn.pipelines.errors import TemplateInvalid
from djinn.pipelines.flow import final_bases
from djinn.pipelines.schema import DIFF, Approve, Step, from_snapshot
from djinn.pipelines.template import render
from djinn.runs.histories import history_of
from djinn.runs.models import Run, StepRun

JSON = Any
Names = Mapping[str, JSON]


@dataclass(frozen=True)
class Question:
    """What people are asked: `shown` holds `outputs` by name, and `diff` when the step shows it."""

    text: str
    shown: Mapping[str, JSON]
    digest: str
    """SHA-256 of both and of what they came from, in hexadecimal."""


def question_of(step_run: StepRun, step: Step, names: Names) -> Question:
    """The question as the rows are now; raises `UserError` when its template cannot be filled in."""
    text = _text(step, names)
    show = (step.approve or Approve()).show
    shown: dict[str, JSON] = {"outputs": {name: names.get(name) for name in show if name != DIFF}}
    if DIFF in show:
        shown["diff"] = _diff_before(step_run)
    return Question(text, shown, _digest(step_run, text, shown))


def origin_of(step_run: StepRun) -> StepRun:
    """The step run that did the work: itself, or the one of an earlier run whose result it took over."""
    return step_run if step_run.reused_from is None else step_run.reused_from


def _text(step: Step, names: Names) -> str:
    try:
        return render(step.input or step.description, {"task_description": step.description, **names}).text
    except TemplateInvalid as exc:
        raise UserError(f"the question of step {step.id} cannot be filled in: {exc}") from exc


def _digest(step_run: StepRun, text: str, shown: Mapping[str, JSON]) -> str:
    upstream = [
        [row.number, row.step, row.item, row.visit, row.attempt, row.outputs, row.snapshot]
        for row in _upstream(step_run)
    ]
    run = step_run.run
    whole = {"question": text, "shown": shown, "definition": run.digest, "inputs": run.inputs, "upstream": upstream}
    canonical = json.dumps(whole, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _upstream(step_run: StepRun) -> list[StepRun]:
    """Every step run whose files have come into this one, directly or through others, in their order."""
    rows = {row.number: row for row in step_run.run.step_runs.filter(number__lt=step_run.number)}
    wanted: set[int] = set()
    waiting = list(step_run.bases)
    while waiting:
        number = waiting.pop()
        if number in rows and number not in wanted:
            wanted.add(number)
            waiting.extend(rows[number].bases)
    return [rows[number] for number in sorted(wanted)]


def _diff_before(step_run: StepRun) -> str:
    """What was changed before the step run began; in a used pipeline that has changed nothing yet, around it."""
    if step_run.bases:
        return _diff(step_run.run.step_runs.filter(number__in=step_run.bases).order_by("number"))
    parent = step_run.run.parent
    return "" if parent is None else _diff_before(parent)


def _diff(bases: Iterable[StepRun]) -> str:
    """What the run changed up to these step runs, under a heading each when there are several."""
    diffs = [(base, _diff_of(base)) for base in bases]
    if len(diffs) == 1:
        return diffs[0][1]
    return "\n".join(f"# {_named(base)}\n{text}" for base, text in diffs if text)


def _diff_of(base: StepRun) -> str:
    origin = origin_of(base)
    if origin.execution is not None:
        return origin.execution.run_diff
    child = Run.objects.filter(parent=origin).first()
    if child is None:
        return ""
    numbers = final_bases(from_snapshot(child.definition), history_of(child))
    return _diff(child.step_runs.filter(number__in=numbers).order_by("number")) if numbers else _diff_before(base)


def _named(row: StepRun) -> str:
    return f"{row.step}[{row.item}]" if row.item else row.step
