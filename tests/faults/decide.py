"""What the flow says now about runs that have ended: `python -m tests.faults.decide ID...`, a JSON object by run.

A process of its own, because it must read the stack's database with the product's own code.
"""

from __future__ import annotations

import json
import os
import sys


def main(numbers: list[int]) -> None:
    """Print `{run: [kind, status]}` of the flow's last word; kind "undecided" when the run should go on."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "djinn.settings")
    import django

    django.setup()
    from djinn.pipelines.flow import Finish, Refuse, Skip, Start, next_steps
    from djinn.pipelines.schema import from_snapshot
    from djinn.runs.histories import history_of
    from djinn.runs.models import Run

    told = {}
    for run in Run.objects.filter(pk__in=numbers):
        is_cancelled = run.cancel_requested_at is not None
        pipeline = from_snapshot(run.definition)
        decisions = next_steps(pipeline, history_of(run), inputs=run.inputs, cancelled=is_cancelled)
        ends = [decision.status for decision in decisions if isinstance(decision, Finish)]
        goes_on = any(isinstance(decision, (Start, Skip, Refuse)) for decision in decisions)
        is_end = len(ends) == 1 and not goes_on
        told[run.pk] = ["finish", ends[0]] if is_end else ["undecided", str(decisions)[:300]]
    sys.stdout.write(json.dumps(told))


if __name__ == "__main__":
    main([int(argument) for argument in sys.argv[1:]])
