"""Ids that are there twice, and references to steps and agents that do not exist."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from djinn.pipelines.checks.context import Checking
from djinn.pipelines.document import line_of
from djinn.pipelines.reading.steps import StepSource
from djinn.pipelines.report import quoted
from djinn.pipelines.schema import Step


def check_ids(checking: Checking) -> None:
    """Each id is there once."""
    lines: dict[str, int] = {}
    for source in checking.sources:
        step_id = source.step.id
        if step_id in lines:
            checking.error(source, f"there is already a step {step_id!r} on line {lines[step_id]}", "id")
        elif step_id:
            lines[step_id] = line_of(source.node, "id")


def check_references(checking: Checking) -> None:
    """What follows a step, and what it waits for, exists."""
    for source in checking.sources:
        for target, path in references(source):
            if target not in checking.steps:
                near = checking.report.suggest(target, checking.steps)
                checking.error(source, f"there is no step {quoted(target)}{near}", *path)


def check_agents(checking: Checking, known: Collection[str] | None) -> None:
    """Agents that exist neither in the file nor among the known ones; not checked when those are not given."""
    if known is None:
        return
    every = {*known, *checking.pipeline.agents}
    for source in checking.sources:
        for agent, path in _agents_of(source.step):
            if agent and agent not in every:
                near = checking.report.suggest(agent, every)
                checking.error(source, f"there is no agent {agent!r}{near}", *path)


def references(source: StepSource) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The ids of steps that a step names, each with the path of its key."""
    step = source.step
    yield from routes_of(step)
    yield from ((wanted, ("dependsOn",)) for wanted in source.depends_on)
    yield from ((wanted, ("needs",)) for wanted in step.needs)


def routes_of(step: Step) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The steps that a step leads to, each with the path of its key."""
    if step.loop is not None and step.loop.on_each_complete is not None:
        yield step.loop.on_each_complete, ("loop", "onEachComplete")
    if step.loop is not None and step.loop.on_all_complete is not None:
        yield step.loop.on_all_complete, ("loop", "onAllComplete")
    for path, route in step.actions:
        if route.goto is not None:
            yield route.goto, (*path, "goto")
    if step.on_complete is not None:
        yield step.on_complete, ("onComplete",)


def _agents_of(step: Step) -> Iterator[tuple[str, tuple[str, ...]]]:
    yield step.agent, ("agent",)
    for path, route in step.actions:
        if route.notify is not None:
            yield route.notify.agent, (*path, "notify", "agent")
