"""One run of a pipeline without anything that runs: the flow decides, answers are given, a virtual clock goes on.

What is told, and in which order, is what the engine tells of a run whose steps end in the same way.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from djinn.pipelines.errors import InputsInvalid, TemplateInvalid
from djinn.pipelines.flow import (
    Decision,
    Finish,
    Past,
    Refuse,
    Skip,
    Start,
    Status,
    Tell,
    next_steps,
)
from djinn.pipelines.inputs import resolve_inputs
from djinn.pipelines.names import names_for, outputs_of
from djinn.pipelines.results import DECISION, UNMATCHED, takes_rejection, unmatched
from djinn.pipelines.schema import JSON, Pipeline, Step
from djinn.pipelines.template import render

Verdict = Literal["approved", "rejected", "expired"]
MOST_STEP_RUNS = 5000
COMMENT = "COMMENT"
LONGEST_NOTE = 20_000


@dataclass(frozen=True)
class Answer:
    """How one try ends, after so many virtual seconds. People answer an approval with a verdict; success is approval
    there, and failure rejection."""

    status: Literal["succeeded", "failed", "cancelled"] | Verdict = "succeeded"
    reason: str = ""
    outputs: Mapping[str, JSON] = field(default_factory=dict)
    seconds: float = 60.0


@dataclass(frozen=True)
class Ask:
    """The try that an answer is wanted for."""

    step: Step
    item: str
    visit: int
    attempt: int
    names: Mapping[str, JSON]
    """What its templates may name."""


Answers = Callable[[Ask], Answer]


@dataclass(frozen=True)
class Event:
    """One thing that is told of the run, `at` so many virtual seconds from its start."""

    at: float
    type: str
    data: Mapping[str, JSON]


@dataclass(frozen=True)
class Played:
    """A run from start to end. `applied` holds what the flow decided, each with how many step runs there were."""

    events: tuple[Event, ...]
    history: tuple[Past, ...]
    outputs: Mapping[str, JSON]
    seconds: float
    finish: Finish
    applied: tuple[tuple[int, Decision], ...]
    is_cut: bool = False
    """Whether it was stopped because it went on for too long."""


def play(
    pipeline: Pipeline,
    answers: Answers,
    *,
    inputs: Mapping[str, JSON] | None = None,
    known: Mapping[str, Pipeline] | None = None,
    most_step_runs: int = MOST_STEP_RUNS,
) -> Played:
    """Play a run whose tries end as `answers` says; `known` are the pipelines that steps may use, by id.

    `inputs` are taken as they are. Whatever can run at once does. Same arguments, same result.
    """
    return _Play(pipeline, answers, dict(inputs or {}), known or {}, most_step_runs).played()


class _Play:
    """The state of one play."""

    def __init__(
        self, pipeline: Pipeline, answers: Answers, inputs: dict[str, JSON], known: Mapping[str, Pipeline], most: int
    ) -> None:
        self.pipeline, self.answers, self.inputs, self.known, self.most = pipeline, answers, inputs, known, most
        self.now = 0.0
        self.events: list[Event] = []
        self.history: list[Past] = []
        self.applied: list[tuple[int, Decision]] = []
        self.finish: Finish | None = None
        self.started: list[int] = []
        self.is_waiting = False
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []
        self._entries = 0

    def played(self) -> Played:
        self._tell("run_queued", {"pipeline": self.pipeline.id})
        self._advance()
        while self.finish is None and self._agenda and len(self.history) < self.most:
            self.now, _, happens = heapq.heappop(self._agenda)
            happens()
        is_cut = self.finish is None
        finish = self.finish or Finish("failed", "error", f"stopped after {len(self.history)} step runs")
        outputs = outputs_of(self.pipeline, self.history)
        return Played(
            tuple(self.events), tuple(self.history), outputs, self.now, finish, tuple(self.applied), is_cut=is_cut
        )

    # --- What the flow decides ----------------------------------------------------------------------------------------
    def _advance(self) -> None:
        """Do what the flow decides; what began with it is then set going, in its order."""
        self._decide()
        started, self.started = self.started, []
        for number in started:
            self._begin(number)

    def _decide(self) -> None:
        while self.finish is None:
            decisions = next_steps(self.pipeline, self.history, inputs=self.inputs)
            for decision in decisions:
                self._apply(decision)
            if not any(isinstance(decision, (Skip, Refuse)) for decision in decisions):
                break
        if self.finish is None:
            self._show_waiting()

    def _apply(self, decision: Decision) -> None:
        self.applied.append((len(self.history), decision))
        if isinstance(decision, Start):
            self._start(decision)
        elif isinstance(decision, Skip):
            number = self._add(decision, Status.SKIPPED, item_value=decision.item_value)
            self._tell("step_skipped", {**self._tags(number), "because": decision.because})
        elif isinstance(decision, Refuse):
            number = self._add(decision, Status.QUEUED)
            self._end(number, Status.FAILED, decision.reason, message=decision.message)
        elif isinstance(decision, Tell):
            self._notify(decision)
        elif isinstance(decision, Finish):
            self.finish = decision
            end: dict[str, JSON] = {"status": decision.status, "reason": decision.reason}
            self._tell("run_finished", {**end, "message": decision.message})

    def _start(self, start: Start) -> None:
        number = self._add(start, Status.QUEUED, attempt=start.attempt, item_value=start.item_value)
        told: dict[str, JSON] = {"because": start.because, "delay_seconds": start.delay_seconds}
        self._tell("step_queued", {**self._tags(number), **told})
        if start.delay_seconds:
            self._later(start.delay_seconds, lambda: self._begin(number))
        else:
            self.started.append(number)

    def _add(
        self, decision: Start | Skip | Refuse, status: Status, *, attempt: int = 0, item_value: JSON = None
    ) -> int:
        if not self.history:
            self._tell("run_started", {})
        attempt = attempt or getattr(decision, "attempt", 1)
        self.history.append(
            Past(decision.step, decision.visit, attempt, status, item=decision.item, item_value=item_value,
                 bases=decision.bases)
        )  # fmt: skip
        return len(self.history)

    def _notify(self, tell: Tell) -> None:
        source = self.history[tell.source - 1]
        names = names_for(self.pipeline, self.history, self.inputs, self.pipeline.step(source.step), source)
        try:
            text = render(tell.message, names).text[:LONGEST_NOTE]
        except TemplateInvalid as exc:
            text = f"a message to {tell.agent} cannot be filled in: {exc}"
            self._tell("notice", {**self._tags(tell.source), "text": text})
            return
        self._tell("notified", {**self._tags(tell.source), "agent": tell.agent, "text": text})

    # --- Tries --------------------------------------------------------------------------------------------------------
    def _begin(self, number: int) -> None:
        """Set a step run going: what it is asked is made, and how it ends is put on the agenda."""
        past = self.history[number - 1]
        step = self.pipeline.step(past.step)
        names = names_for(self.pipeline, self.history, self.inputs, step, past)
        try:
            self._prepare(step, names)
        except (TemplateInvalid, InputsInvalid) as exc:
            self._end(number, Status.FAILED, "input", message=str(exc))
            self._advance()
            return
        answer = self.answers(Ask(step, past.item, past.visit, past.attempt, names))
        if step.approve is not None:
            self._ask(number, step, answer)
            return
        if step.kind == "uses":
            self._run(number, step, answer)
        else:  # a worker takes it once everything that began with it is prepared
            self._later(0.0, lambda: self._run(number, step, answer))

    def _run(self, number: int, step: Step, answer: Answer) -> None:
        self._set(number, status=Status.RUNNING)
        self._tell("step_started", self._tags(number))
        self._later(answer.seconds, lambda: self._settle(number, step, answer))

    def _prepare(self, step: Step, names: Mapping[str, JSON]) -> None:
        """Fill in what the step is given; raises `TemplateInvalid` or `InputsInvalid`."""
        if step.kind == "uses":
            given = {name: render(value, names).text if isinstance(value, str) else value
                     for name, value in step.given.items()}  # fmt: skip
            if step.uses in self.known:
                resolve_inputs(self.known[step.uses], given)
            return
        text = step.run if step.kind == "run" else step.input or step.description
        render(text, {**names, "task_description": step.description})
        if step.needs_container:
            render(self.pipeline.workspace.repository, names)
            render(self.pipeline.workspace.ref, names)

    def _settle(self, number: int, step: Step, answer: Answer) -> None:
        outputs = dict(answer.outputs)
        if step.kind == "uses" and step.outputs:
            outputs = {name: outputs[name] for name in step.outputs if name in outputs}
        problem = unmatched(step, outputs) if answer.status == "succeeded" else ""
        if problem:
            self._end(number, Status.FAILED, UNMATCHED, message=problem, outputs=outputs)
        else:
            self._end(number, Status(answer.status), answer.reason, outputs=outputs)
        self._advance()

    def _end(
        self, number: int, status: Status, reason: str, *, message: str = "", outputs: Mapping[str, JSON] | None = None
    ) -> None:
        self._set(number, status=status, reason=reason, outputs=outputs or {})
        told: dict[str, JSON] = {"status": str(status), "reason": reason, "message": message}
        self._tell("step_finished", {**self._tags(number), **told, "outputs": dict(outputs or {})})

    # --- Approvals ----------------------------------------------------------------------------------------------------
    def _ask(self, number: int, step: Step, answer: Answer) -> None:
        assert step.approve is not None
        self._set(number, status=Status.WAITING)
        self._tell("step_waiting", self._tags(number))
        self._tell("approval_asked", {**self._tags(number), "count": step.approve.count})
        is_expired = answer.status == "expired"
        seconds = float(step.approve.expires_seconds or 0) if is_expired else answer.seconds
        self._later(seconds, lambda: self._decided(number, step, answer))
        self._decide()

    def _decided(self, number: int, step: Step, answer: Answer) -> None:
        """People have said enough, or the time has passed."""
        assert step.approve is not None
        status = {"succeeded": "approved", "failed": "rejected"}.get(answer.status, answer.status)
        tags = self._tags(number)
        if status == "cancelled":
            self._settle(number, step, answer)
            return
        if status == "expired":
            self._tell("approval_expired", tags)
        else:
            voices = step.approve.count if status == "approved" else 1
            for voice in range(1, voices + 1):
                so_far = status if voice == voices else "open"
                word = "approve" if status == "approved" else "reject"
                self._tell("approval_decided", {**tags, "verdict": word, "status": so_far})
        outputs: dict[str, JSON] = {step.outputs[0] if step.outputs else DECISION: status, COMMENT: ""}
        outputs.update({name: value for name, value in answer.outputs.items() if name == COMMENT})
        if status == "approved" or (status == "rejected" and takes_rejection(step)):
            self._end(number, Status.SUCCEEDED, "", outputs=outputs)
        else:
            self._end(number, Status.FAILED, str(status), outputs=outputs)
        self._advance()

    # --- The rest -----------------------------------------------------------------------------------------------------
    def _show_waiting(self) -> None:
        """Tell when the run comes to wait for people alone."""
        statuses = {past.status for past in self.history if not past.status.is_final}
        is_waiting = statuses == {Status.WAITING}
        if is_waiting and not self.is_waiting:
            self._tell("run_waiting", {})
        self.is_waiting = is_waiting

    def _later(self, seconds: float, happens: Callable[[], None]) -> None:
        self._entries += 1
        heapq.heappush(self._agenda, (self.now + seconds, self._entries, happens))

    def _set(self, number: int, **columns: object) -> None:
        self.history[number - 1] = replace(self.history[number - 1], **columns)  # type: ignore[arg-type]

    def _tags(self, number: int) -> dict[str, JSON]:
        past = self.history[number - 1]
        return {
            "step_run": number, "step": past.step, "item": past.item, "visit": past.visit, "attempt": past.attempt,
        }  # fmt: skip

    def _tell(self, kind: str, data: Mapping[str, JSON]) -> None:
        self.events.append(Event(self.now, kind, data))
