"""Which tree of the run's workspace a step works in.

Steps that may run at the same time have trees of their own. A step that alone follows another one goes on in that
one's tree, so that what no snapshot holds (caches, installed packages) is still there.
"""

from __future__ import annotations

from djinn.pipelines.schema import Pipeline, Step


def lane_of(pipeline: Pipeline, step: Step, item: str = "") -> str:
    """The lane's name; empty is the main tree, in which routed pipelines do everything."""
    if pipeline.family == "routed":
        return ""
    if item:
        return f"{step.id}.{item}"
    while (before := _only_one_before(pipeline, step)) is not None:
        step = before
    return step.id


def _only_one_before(pipeline: Pipeline, step: Step) -> Step | None:
    """The step that this one alone follows."""
    if len(step.needs) != 1 or step.has_items:
        return None
    before = pipeline.step(step.needs[0])
    followers = [other.id for other in pipeline.steps if before.id in other.needs]
    return before if followers == [step.id] and not before.has_items else None
