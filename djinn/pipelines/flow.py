"""What starts next: one pure function of a pipeline and the step runs so far.

The engine applies its decisions, the simulator drives it with a virtual clock, and "why does it not start?" is answered
by `Blocked`. No Django, no clock, no randomness.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from djinn.pipelines.graph import ends_of, next_graph
from djinn.pipelines.history import (
    Blocked,
    Blocker,
    Decision,
    Finish,
    History,
    Past,
    Refuse,
    Skip,
    Start,
    Status,
    Tell,
    named,
)
from djinn.pipelines.routed import next_routed, not_reached
from djinn.pipelines.schema import JSON, Pipeline

__all__ = [
    "Blocked", "Blocker", "Decision", "Finish", "History", "Past", "Refuse", "Skip", "Start", "Status", "Tell",
    "final_bases", "next_steps",
]  # fmt: skip


def next_steps(
    pipeline: Pipeline,
    history: History,
    *,
    inputs: Mapping[str, JSON] | None = None,
    cancelled: bool = False,
    paused: bool = False,
) -> tuple[Decision, ...]:
    """What to do now; never empty.

    Each step that neither has ended nor can start is there as `Blocked`, with what it waits for. After a cancel nothing
    starts, and the run ends once nothing of it is open. While the run is paused nothing starts either.
    """
    still_open = [past for past in history if not past.status.is_final]
    if cancelled:
        if not still_open:
            return (Finish("cancelled", "cancelled", "the run was cancelled"),)
        return tuple(Blocked(past.step, f"the run is cancelled and {_state(past)}", past.item) for past in still_open)
    if pipeline.family == "graph":
        decisions = next_graph(pipeline, history, inputs or {})
    elif still_open:
        waiting = (Blocked(past.step, _state(past), past.item) for past in still_open)
        decisions = (*waiting, *not_reached(pipeline, history))
    else:
        decisions = next_routed(pipeline, history, inputs or {})
    return _held(decisions) if paused else decisions


def final_bases(pipeline: Pipeline, history: History) -> tuple[int, ...]:
    """The numbers of the step runs whose files are what the whole run has left."""
    if pipeline.family == "graph":
        return ends_of(pipeline, history)
    done = [past for past in history if past.status is Status.SUCCEEDED]
    if not done:
        return ()
    last = done[-1]
    return last.bases if pipeline.step(last.step).kind == "approve" else (history.index(last) + 1,)


def _held(decisions: tuple[Decision, ...]) -> tuple[Decision, ...]:
    """The decisions of a paused run: what would begin waits until somebody resumes it; so does what waits anyway."""
    if any(isinstance(decision, Finish) for decision in decisions):
        return decisions
    pause = Blocker("pause", "somebody has to resume the run")
    held: list[Decision] = []
    for decision in decisions:
        if isinstance(decision, (Start, Skip, Refuse)):
            held.append(Blocked(decision.step, "the run is paused", decision.item, (pause,)))
        elif isinstance(decision, Blocked):
            held.append(replace(decision, blockers=(*decision.blockers, pause)) if decision.blockers else decision)
    return tuple(held)


def _state(past: Past) -> str:
    return f"{named(past.step, past.item)} visit {past.visit} attempt {past.attempt} is {past.status}"
