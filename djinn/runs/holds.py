"""What holds back the work of a run: a pause, a cancel or an end, its own or that of a run that it is a part of.

Nothing is claimed in a run that is held. The one rule is asked of one run upwards, under locks, where its work is
claimed; and of all runs downwards, as SQL, where the next work is chosen.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from django.db import connection

from djinn.runs.models import Run, StepRun
from djinn.runs.states import RUN_FINAL

HELD = """
WITH RECURSIVE held AS (
    SELECT id FROM runs_run
     WHERE ended_at IS NULL AND (paused_at IS NOT NULL OR cancel_requested_at IS NOT NULL)
    UNION
    SELECT part.id FROM held
      JOIN runs_steprun AS user_step ON user_step.run_id = held.id
      JOIN runs_run AS part ON part.parent_id = user_step.id AND part.ended_at IS NULL
)
"""
"""Begins a query: `held` are the open runs in which nothing may be claimed."""
_LOCKED = """
SELECT status, paused_at IS NOT NULL, cancel_requested_at IS NOT NULL FROM runs_run WHERE id IN (
    WITH RECURSIVE above AS (
        SELECT id, parent_id FROM runs_run WHERE id = %s
        UNION ALL
        SELECT next.id, next.parent_id FROM above
          JOIN runs_steprun AS user_step ON user_step.id = above.parent_id
          JOIN runs_run AS next ON next.id = user_step.run_id
    ) SELECT id FROM above
) ORDER BY depth FOR SHARE
"""


class Hold(StrEnum):
    """What holds a run's work back."""

    NONE = ""
    PAUSE = "pause"
    """Nothing new is claimed; what has begun goes on."""
    STOP = "stop"
    """A cancel or an end: nothing is claimed but to be stopped."""


def hold_on(run_id: int) -> Hold:
    """What holds the run, which it keeps until the transaction ends: the run and those above are locked in share mode,
    the outermost first."""
    with connection.cursor() as cursor:
        cursor.execute(_LOCKED, [run_id])
        rows = cursor.fetchall()
    if any(status in RUN_FINAL or is_cancelled for status, _, is_cancelled in rows):
        return Hold.STOP
    return Hold.PAUSE if any(is_paused for _, is_paused, _ in rows) else Hold.NONE


def is_paused(run: Run) -> bool:
    """Whether the run, or one that it is a part of, is paused."""
    return any(above.paused_at is not None for above in lineage(run))


def cancelled_at(run: Run) -> datetime | None:
    """When the run, or one that it is a part of, was first cancelled; None when none was."""
    return min((above.cancel_requested_at for above in lineage(run) if above.cancel_requested_at), default=None)


def lineage(run: Run) -> list[Run]:
    """The run and those that it is a part of, the outermost last."""
    found = [run]
    while found[-1].parent_id is not None:
        parent = StepRun.objects.select_related("run").get(pk=found[-1].parent_id)
        found.append(parent.run)
    return found
