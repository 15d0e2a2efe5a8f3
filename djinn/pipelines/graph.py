"""The graph family: a step starts when what it needs is done; a step of several items runs once for each.

A failed step, unless it says `continueOnError`, skips what needs it, and the run fails at its end; other branches go
on. A skipped step skips what needs it. A step whose `when` reads `steps` decides for itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum

from djinn.pipelines.attempts import after_failure
from djinn.pipelines.errors import TemplateInvalid
from djinn.pipelines.expression import evaluate, study_expression
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
    named,
)
from djinn.pipelines.items import NoItems, items_of
from djinn.pipelines.lanes import lane_of
from djinn.pipelines.names import names_for, step_outputs
from djinn.pipelines.schema import JSON, Pipeline, Step


class Outcome(StrEnum):
    """How far a step is as a whole."""

    PENDING = "pending"
    DONE = "done"
    TOLERATED = "tolerated"
    """It failed and says `continueOnError`."""
    FAILED = "failed"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"

    @property
    def lets_go_on(self) -> bool:
        return self in (Outcome.DONE, Outcome.TOLERATED)


def next_graph(pipeline: Pipeline, history: History, inputs: Mapping[str, JSON]) -> tuple[Decision, ...]:
    """Everything that may start now, everything that waits with its reasons, or the end."""
    return tuple(_Graph(pipeline, history, inputs).decide())


def ends_of(pipeline: Pipeline, history: History) -> tuple[int, ...]:
    """The step runs whose files are what the whole graph has left: those of the steps that nothing needs."""
    graph = _Graph(pipeline, history, {})
    needed = {name for step in pipeline.steps for name in step.needs}
    bases = [number for step in pipeline.steps if step.id not in needed for number in graph.files_of(step)]
    return tuple(dict.fromkeys(bases))


class _Graph:
    """One decision about all steps, in an order in which each comes after what it needs."""

    def __init__(self, pipeline: Pipeline, history: History, inputs: Mapping[str, JSON]) -> None:
        self.pipeline = pipeline
        self.history = history
        self.inputs = inputs
        self.rows: dict[str, dict[str, tuple[int, Past]]] = {step.id: {} for step in pipeline.steps}
        for number, past in enumerate(history, 1):
            self.rows[past.step][past.item] = (number, past)
        self.outcomes: dict[str, Outcome] = {}
        self.failures: list[Finish] = []
        self.skipped: dict[str, Skip] = {}

    def decide(self) -> list[Decision]:
        decisions = [decision for step in in_order(self.pipeline) for decision in self._consider(step)]
        if any(outcome is Outcome.PENDING for outcome in self.outcomes.values()):
            return decisions
        return decisions or [self._finish()]

    def files_of(self, step: Step) -> tuple[int, ...]:
        """The step runs whose files stand for what the step left."""
        found: list[int] = []
        for _, (number, past) in sorted(self.rows[step.id].items(), key=_by_item):
            has_files = past.status is Status.SUCCEEDED and step.kind != "approve"
            found.extend((number,) if has_files else past.bases)
        if step.id in self.skipped:
            found.extend(self.skipped[step.id].bases)
        return tuple(dict.fromkeys(found))

    def _consider(self, step: Step) -> Iterator[Decision]:
        rows = self.rows[step.id]
        if any(past.status is Status.SKIPPED for _, past in rows.values()):
            is_empty = any(past.item_value == [] for _, past in rows.values())
            self.outcomes[step.id] = Outcome.DONE if is_empty else Outcome.SKIPPED
        elif step.has_items and "" not in rows:
            yield from self._consider_items(step)
        elif rows:
            yield from self._consider_row(step, rows[""][1])
        else:
            yield from self._consider_first(step, lambda: iter((self._start(step, "", None),)))

    def _consider_first(self, step: Step, start: Callable[[], Iterator[Decision]]) -> Iterator[Decision]:
        """A step that has not begun: it waits, is passed by, cannot start, or starts."""
        pending = [name for name in step.needs if self.outcomes[name] is Outcome.PENDING]
        if pending:
            self.outcomes[step.id] = Outcome.PENDING
            blockers = tuple(Blocker("step", f"{name} has to end first", name) for name in pending)
            yield Blocked(step.id, f"needs {_listed(pending)}", blockers=blockers)
            return
        because = self._skip_reason(step)
        if isinstance(because, Refuse):
            yield self._refused(step, because)
        elif because:
            yield self._skip(step, because, None)
        else:
            yield from start()

    def _consider_row(self, step: Step, past: Past) -> Iterator[Decision]:
        """A step without items that has begun."""
        decision = self._after(step, past)
        if decision is not None:
            yield decision

    def _consider_items(self, step: Step) -> Iterator[Decision]:
        if not self.rows[step.id]:
            yield from self._consider_first(step, lambda: self._items(step))
        else:
            yield from self._items(step)

    def _items(self, step: Step) -> Iterator[Decision]:
        """The items that may run now: at most `parallel` at once, and no new one after one has failed for good."""
        try:
            items = items_of(step, self._names(step))
        except NoItems as exc:
            yield self._refused(step, Refuse(step.id, 1, 1, "input", str(exc), bases=self._bases(step)))
            return
        if not items:
            yield self._skip(step, "there are no items", [])
            return
        begun = self.rows[step.id]
        ongoing = [self._after(step, past) for _, (_, past) in sorted(begun.items(), key=_by_item)]
        outcomes = [self._outcome_of(step, past) for _, past in begun.values()]
        has_failed = Outcome.FAILED in outcomes or Outcome.CANCELLED in outcomes
        if has_failed:  # no item is tried again that could not save the step
            ongoing = [decision for decision in ongoing if not isinstance(decision, Start)]
            outcomes = [_settled(past, outcome) for (_, past), outcome in zip(begun.values(), outcomes, strict=True)]
        open_count = outcomes.count(Outcome.PENDING)
        yield from (decision for decision in ongoing if decision is not None)
        waiting = [] if has_failed else [index for index in range(len(items)) if str(index) not in begun]
        free = max(0, step.parallel - open_count)
        for index in waiting[:free]:
            yield self._start(step, str(index), items[index])
        for index in waiting[free:]:
            text = f"{step.parallel} items of {step.id} run at once"
            yield Blocked(step.id, text, str(index), (Blocker("parallel", text, step.id),))
        self.outcomes[step.id] = Outcome.PENDING if open_count or waiting else _worst(outcomes)

    def _after(self, step: Step, past: Past) -> Decision | None:
        """What becomes of a step run that exists: it goes on, is tried again, or has ended."""
        outcome = self.outcomes[step.id] = self._outcome_of(step, past)
        if not past.status.is_final:
            return Blocked(step.id, f"{named(step.id, past.item)} attempt {past.attempt} is {past.status}", past.item)
        if past.status is Status.FAILED:
            again = after_failure(step, past, self.history, lane=lane_of(self.pipeline, step, past.item))
            if isinstance(again, Start):
                return again
            if outcome is Outcome.FAILED:
                self.failures.append(again)
        if past.status is Status.CANCELLED:
            self.failures.append(Finish("cancelled", "cancelled", f"step {named(step.id, past.item)} was cancelled"))
        return None

    def _outcome_of(self, step: Step, past: Past) -> Outcome:
        if not past.status.is_final:
            return Outcome.PENDING
        if past.status is Status.SUCCEEDED:
            return Outcome.DONE
        if past.status is Status.CANCELLED:
            return Outcome.CANCELLED
        if isinstance(after_failure(step, past, self.history, lane=""), Start):
            return Outcome.PENDING
        return Outcome.TOLERATED if step.continue_on_error else Outcome.FAILED

    def _skip_reason(self, step: Step) -> str | Refuse:
        """Why the step is passed by, empty when it is not; a `Refuse` when its condition cannot be told."""
        reads_steps = bool(step.when) and "steps" in study_expression(step.when).names
        missing = [name for name in step.needs if not self.outcomes[name].lets_go_on]
        if missing and not reads_steps:
            return f"{missing[0]} {_WORDS[self.outcomes[missing[0]]]}"
        if not step.when:
            return ""
        try:
            is_true = bool(evaluate(step.when, self._names(step)))
        except TemplateInvalid as exc:
            text = f"the condition {step.when!r} of step {step.id} cannot be told: {exc.message}"
            return Refuse(step.id, 1, 1, "input", text, bases=self._bases(step))
        return "" if is_true else f"its condition is not true: {step.when}"

    def _start(self, step: Step, item: str, value: JSON) -> Start:
        self.outcomes[step.id] = Outcome.PENDING
        because = f"after {_listed(step.needs)}" if step.needs else "needs nothing"
        bases, lane = self._bases(step), lane_of(self.pipeline, step, item)
        return Start(step.id, 1, 1, 0.0, because, item=item, item_value=value, bases=bases, lane=lane)

    def _skip(self, step: Step, because: str, value: JSON) -> Skip:
        self.outcomes[step.id] = Outcome.DONE if value == [] else Outcome.SKIPPED
        skip = self.skipped[step.id] = Skip(step.id, 1, because, item_value=value, bases=self._bases(step))
        return skip

    def _refused(self, step: Step, refuse: Refuse) -> Refuse:
        self.outcomes[step.id] = Outcome.PENDING
        return refuse

    def _bases(self, step: Step) -> tuple[int, ...]:
        bases = [number for name in step.needs for number in self.files_of(self.pipeline.step(name))]
        return tuple(dict.fromkeys(bases))

    def _names(self, step: Step) -> dict[str, JSON]:
        names = names_for(self.pipeline, self.history, self.inputs, step, None)
        known = names["steps"]
        passed: dict[str, JSON] = {
            name: {"status": "skipped", "outputs": dict(step_outputs(self.pipeline.step(name), self.history))}
            for name in self.skipped
        }
        names["steps"] = {**(known if isinstance(known, dict) else {}), **passed}
        return names

    def _finish(self) -> Finish:
        bad = {Outcome.FAILED, Outcome.CANCELLED}
        if bad.isdisjoint(self.outcomes.values()):
            return Finish("succeeded", "", "")
        failed = [finish for finish in self.failures if finish.status == "failed"]
        return (failed or self.failures)[0]


_WORDS = {Outcome.FAILED: "failed", Outcome.SKIPPED: "was skipped", Outcome.CANCELLED: "was cancelled"}


def in_order(pipeline: Pipeline) -> list[Step]:
    """The steps, each after what it needs, else in the file's order. Raises `LookupError` when needs go in a circle."""
    ordered: list[Step] = []
    done: set[str] = set()
    waiting = list(pipeline.steps)
    while waiting:
        ready = [step for step in waiting if done.issuperset(step.needs)]
        if not ready:
            raise LookupError(f"steps need each other: {_listed([step.id for step in waiting])}")
        ordered.extend(ready)
        done.update(step.id for step in ready)
        waiting = [step for step in waiting if step.id not in done]
    return ordered


def _settled(past: Past, outcome: Outcome) -> Outcome:
    """The outcome of an item that is not tried again."""
    return Outcome.FAILED if outcome is Outcome.PENDING and past.status.is_final else outcome


def _worst(outcomes: list[Outcome]) -> Outcome:
    order = (Outcome.CANCELLED, Outcome.FAILED, Outcome.TOLERATED, Outcome.DONE)
    return next(outcome for outcome in order if outcome in outcomes)


def _by_item(pair: tuple[str, object]) -> int:
    return int(pair[0] or 0)


def _listed(names: object) -> str:
    words = list(names) if isinstance(names, (list, tuple)) else []
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1] if words else ""]))
