"""Whether a step has its prompt still before it."""

from __future__ import annotations

from djinn.pipelines.flow import Blocked, Start, next_steps
from djinn.pipelines.schema import Pipeline, Step
from djinn.runs.histories import history_of
from djinn.runs.models import Run, StepRun
from djinn.runs.states import StepStatus


def may_still_start(run: Run, pipeline: Pipeline, step: Step) -> bool:
    """Whether text that is added now can stand in a prompt of the step.

    A try whose prompt was not made yet counts. So does a step that has ended where it may be come to again, and one
    with items that have not begun.
    """
    rows = list(run.step_runs.filter(step=step.id).order_by("number"))
    if not rows or any(_is_unprompted(row) for row in rows):
        return True
    if pipeline.family == "routed":
        return rows[-1].is_final
    begun = {(row.item, row.visit, row.attempt) for row in rows}
    return any(_is_new(decision, step, begun) for decision in next_steps(pipeline, history_of(run), inputs=run.inputs))


def _is_unprompted(row: StepRun) -> bool:
    return row.status == StepStatus.QUEUED and row.execution_id is None


def _is_new(decision: object, step: Step, begun: set[tuple[str, int, int]]) -> bool:
    if isinstance(decision, Start) and decision.step == step.id:
        return (decision.item, decision.visit, decision.attempt) not in begun
    if isinstance(decision, Blocked) and decision.step == step.id:
        return decision.item not in {item for item, _, _ in begun}
    return False
