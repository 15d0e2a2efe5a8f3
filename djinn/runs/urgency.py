"""Which step goes next when all places of a host's workers are taken and one becomes free.

A doorbell says that something waits, not what: whoever hears it takes the most urgent one. Urgency is the run's
priority and one more for each minute since the step run was queued; two of them age alike, so a point of priority is
worth a minute of having come earlier, and nothing starves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db import connection

from djinn.executions.states import ExecutionStatus
from djinn.runs.holds import HELD
from djinn.runs.states import StepStatus

MOST_URGENT = """
SELECT s.id
  FROM executions_execution AS e
  JOIN runs_steprun AS s ON s.execution_id = e.id
  JOIN runs_run AS r ON r.id = s.run_id
 WHERE e.lease_expires_at IS NULL AND e.status = %(starting)s AND e.host IN ('', %(host)s)
   AND s.status = %(queued)s
   AND r.id NOT IN (SELECT id FROM held) AND r.host IN ('', %(host)s)
   AND NOT s.id = ANY(%(but)s)
 ORDER BY s.queued_at - r.priority * interval '1 minute', s.id
 LIMIT 1
   FOR UPDATE OF e SKIP LOCKED
"""


def most_urgent(host: str, *, but: Sequence[int] = ()) -> int | None:
    """The step run whose execution, that nobody has claimed yet, this host should claim next; None when none waits.

    `but` are step runs that could not be claimed.

    In a transaction the execution stays locked, and of two workers that ask at once each gets another one.
    """
    parameters: dict[str, Any] = {
        "but": list(but),
        "host": host,
        "starting": ExecutionStatus.STARTING,
        "queued": StepStatus.QUEUED,
    }
    with connection.cursor() as cursor:
        cursor.execute(HELD + MOST_URGENT, parameters)
        row = cursor.fetchone()
    return int(row[0]) if row else None
