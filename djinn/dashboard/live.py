"""What a socket sends: the next events as HTML that appends itself to the page, the same for every viewer of a run.

A batch depends on nothing but the run and the sequence number behind which it begins, so viewers who stand at the same
place share one reading and one rendering.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from django.template.loader import render_to_string

from djinn.dashboard.entries import ENGINE_TYPES, is_retry, step_run_of
from djinn.dashboard.folding import Change, Fold, patches_of
from djinn.dashboard.parts import failing_calls, parts_of
from djinn.dashboard.selectors import HEAVY, PEOPLE, fold_at
from djinn.events.log import LoggedEvent, read_after
from djinn.runs.models import Run
from djinn.runs.selectors import UNLISTED, RunView, StepView, bill_of_run, run_view

EVENTS_A_MESSAGE = 200
MOST_KEPT = 64
MOST_KEPT_CHARACTERS = 256 * 1024
"""A batch that is larger is not kept: those who catch up on a long log stand at many places."""


@dataclass(frozen=True)
class Batch:
    """Some events as HTML. `seq` is the last of them; `has_more` says that more may be waiting already."""

    html: str
    seq: int
    has_more: bool
    read_at: float
    fold: Fold


_kept: OrderedDict[tuple[int, int], Batch] = OrderedDict()
_folds: OrderedDict[tuple[int, int], Fold] = OrderedDict()
_lock = threading.Lock()


def next_batch(run_id: int, after: int, asked_at: float) -> Batch | None:
    """The events behind `after`, at most `EVENTS_A_MESSAGE`; None when there are none yet.

    `asked_at` is when the viewer last took a hint, by the monotonic clock: what was read before that may lack the event
    that the hint was about.
    """
    with _lock:
        kept, fold = _kept.get((run_id, after)), _folds.get((run_id, after))
    if kept is not None:
        return replace(kept, has_more=kept.has_more or kept.read_at < asked_at)
    batch = _read_batch(run_id, after, fold)
    if batch is not None:
        with _lock:
            _keep(run_id, after, batch)
    return batch


def _keep(run_id: int, after: int, batch: Batch) -> None:
    if len(batch.html) <= MOST_KEPT_CHARACTERS:
        _kept[run_id, after] = batch
    _folds[run_id, batch.seq] = batch.fold
    for store in (_kept, _folds):
        while len(store) > MOST_KEPT:
            store.popitem(last=False)


def figures(run_id: int) -> str:
    """Duration, tokens and cost as of now."""
    row = Run.objects.select_related("created_by").defer(*UNLISTED, "inputs").get(pk=run_id)
    view = RunView(row, (), bill_of_run(run_id), "")
    return render_to_string("dashboard/run/live_figures.html", {"view": view})


def _read_batch(run_id: int, after: int, fold: Fold | None) -> Batch | None:
    stream = f"run-{run_id}"
    read_at = time.monotonic()
    events = read_after(stream, after, limit=EVENTS_A_MESSAGE)
    if not events:
        return None
    fold = fold.copy() if fold else fold_at(stream, after)
    html = _render(run_id, after, events, fold.take_all(events))
    return Batch(html, events[-1].seq, len(events) == EVENTS_A_MESSAGE, read_at, fold)


def _render(run_id: int, after: int, events: Sequence[LoggedEvent], changes: Sequence[Change]) -> str:
    context = {"after": after, "seq": events[-1].seq, "patches": patches_of(changes)}
    moved = [event for event in events if event.type in ENGINE_TYPES]
    if moved:
        run = Run.objects.select_related(*PEOPLE).defer(*HEAVY).get(pk=run_id)
        view = run_view(run, is_whole=False)
        steps: dict[int, StepView] = {step.row.pk: step for step in view.steps}
        touched = {pk: steps[pk] for event in moved if (pk := step_run_of(event)) in steps}
        context |= {"view": view, "steps": steps, "touched": touched, "parts": parts_of(view)}
    if moved or any(is_retry(event) for event in events):
        context["calls"] = failing_calls(run_id)
    return render_to_string("dashboard/run/live.html", context)
