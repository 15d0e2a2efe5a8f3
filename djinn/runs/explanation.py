"""Why something does not run, and what would let it: from the same function that decides what starts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from django.utils import timezone

from djinn.pipelines.flow import Blocked, Decision, Start, next_steps
from djinn.pipelines.history import named
from djinn.runs import admission
from djinn.runs.definitions import definition_of
from djinn.runs.models import Run, StepRun
from djinn.runs.scene import Scene
from djinn.runs.states import RunStatus, StepStatus


@dataclass(frozen=True)
class Obstacle:
    """One thing that has to change."""

    kind: str
    """step, pause, cancel, parallel, approval, worker, no_worker, delay, group or order."""
    text: str
    step: str = ""
    item: str = ""
    run: int | None = None


@dataclass(frozen=True)
class Explained:
    """Something of a run that is not running. `chain` are the reasons down to what everything waits for."""

    step: str
    """Empty for the run itself."""
    item: str
    state: str
    because: str
    blocked_by: tuple[Obstacle, ...]
    chain: tuple[str, ...]
    unblocks: str
    """What would let it go on, in words."""
    run: int | None = None
    """The run of a used pipeline that it is in; None for the run itself."""


def explain(run: Run) -> list[Explained]:
    """Everything of the run, and of those of the pipelines that it uses, that neither runs nor has ended; empty for a
    run that has ended.

    Raises `Conflict` when this version cannot read its definition.
    """
    return [] if run.is_final else _explain(run, Scene(run))


def _explain(run: Run, scene: Scene) -> list[Explained]:
    if run.status == RunStatus.QUEUED and (queued := _not_admitted(run, scene)):
        return [queued]
    decisions = next_steps(
        definition_of(run),
        scene.histories[run.pk],
        inputs=run.inputs,
        cancelled=run.pk in scene.cancelled,
        paused=run.pk in scene.paused,
    )
    opened = [_open_step(run, row, scene) for row in scene.waiting.get(run.pk, [])]
    used = [
        (child.parent.step, [replace(one, run=one.run or child.pk) for one in _explain(child, scene)])
        for child in scene.children.get(run.pk, [])
        if child.parent is not None
    ]
    stuck = {one.step: [f"{one.step}: {one.because}"] for one in reversed(opened)}
    for step, found in used:
        stuck.setdefault(step, []).extend(_roots(step, found))
    return [*opened, *_not_begun(decisions, stuck), *(one for _, found in used for one in found)]


def _roots(step: str, found: list[Explained]) -> Iterator[str]:
    """The reasons in a used pipeline behind which there is no other step, for the chains that end at its step."""
    for one in found:
        if any(obstacle.kind != "step" for obstacle in one.blocked_by):
            where = f"{step}, run {one.run}"
            yield f"{where}, {named(one.step, one.item)}: {one.because}" if one.step else f"{where}: {one.because}"


def _not_admitted(run: Run, scene: Scene) -> Explained | None:
    reasons = admission.why_not(run, scene.line)
    if not reasons:
        return None
    found = [
        Obstacle(reason.kind, reason.text, run=number) for reason in reasons for number in (reason.runs or (None,))
    ]
    texts = tuple(reason.text for reason in reasons)
    return Explained("", "", "queued", "; ".join(texts), tuple(found), texts, _unblocks(found))


def _not_begun(decisions: tuple[Decision, ...], stuck: dict[str, list[str]]) -> Iterator[Explained]:
    blocked = [decision for decision in decisions if isinstance(decision, Blocked) and decision.blockers]
    reasons = {decision.step: decision for decision in blocked}
    for decision in decisions:
        if isinstance(decision, Start):
            yield Explained(decision.step, decision.item, "ready", decision.because, (), (), "it is about to start")
    for decision in blocked:
        found = [Obstacle(one.kind, one.text, one.step, one.item) for one in decision.blockers]
        chain = tuple(_chain(decision, reasons, stuck))
        yield Explained(
            decision.step, decision.item, "not started", decision.because, tuple(found), chain, _unblocks(found)
        )


def _chain(decision: Blocked, reasons: dict[str, Blocked], stuck: dict[str, list[str]]) -> Iterator[str]:
    """The reasons from this step down to what is open, each once."""
    waiting, seen = [decision], {decision.step}
    while waiting:
        one = waiting.pop(0)
        yield f"{named(one.step, one.item)}: {one.because}"
        for blocker in one.blockers:
            if blocker.kind == "step" and blocker.step not in seen:
                seen.add(blocker.step)
                if blocker.step in reasons:
                    waiting.append(reasons[blocker.step])
                else:
                    yield from stuck.get(blocker.step) or [f"{blocker.step} is running"]


def _open_step(run: Run, row: StepRun, scene: Scene) -> Explained:
    """A step run that exists and waits: for a person, for its next try, or for a worker."""
    obstacle = _approval(row, scene) if row.status == StepStatus.WAITING else _queued(run, row, scene)
    chain = (f"{named(row.step, row.item)}: {obstacle.text}",)
    return Explained(row.step, row.item, row.status, obstacle.text, (obstacle,), chain, _unblocks([obstacle]))


def _approval(row: StepRun, scene: Scene) -> Obstacle:
    if row.pk not in scene.questions:
        return Obstacle("approval", "its question is being asked", row.step, row.item)
    approval, agreed = scene.questions[row.pk]
    until = f", until {_shown(approval.expires_at)}" if approval.expires_at else ""
    left = approval.count - agreed
    text = f"waiting for {left} approval{'' if left == 1 else 's'} by {' or '.join(map(str, approval.by))}{until}"
    return Obstacle("approval", text, row.step, row.item)


def _queued(run: Run, row: StepRun, scene: Scene) -> Obstacle:
    if run.pk in scene.cancelled:
        return Obstacle("cancel", "the run is being cancelled", row.step, row.item)
    if row.not_before is not None and row.not_before > timezone.now():
        return Obstacle("delay", f"its next try begins at {_shown(row.not_before)}", row.step, row.item)
    if run.pk in scene.paused:
        return Obstacle("pause", "the run is paused", row.step, row.item)
    if row.execution is None:
        return Obstacle("worker", "a control worker has to prepare it", row.step, row.item)
    host = row.execution.host
    where = f" of host {host}" if host else ""
    if not scene.has_agents_worker(host):
        return Obstacle("no_worker", f"no agents worker{where} has been heard of lately", row.step, row.item)
    return Obstacle("worker", f"an agents worker{where} has to take it", row.step, row.item)


_REMEDIES = {
    "step": "{step} ends",
    "pause": "somebody resumes the run",
    "cancel": "nothing: the run is being cancelled",
    "parallel": "one of the items that run ends",
    "approval": "the people who may decide, decide",
    "worker": "a worker has a free place",
    "no_worker": "a worker is started there",
    "delay": "its time comes",
    "group": "run {run} ends",
    "order": "run {run} begins",
}


def _unblocks(obstacles: list[Obstacle]) -> str:
    words = [_REMEDIES[one.kind].format(step=named(one.step, one.item), run=one.run) for one in obstacles]
    return " and ".join(dict.fromkeys(words))


def _shown(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
