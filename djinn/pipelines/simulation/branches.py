"""The branches of a pipeline: every way that a run can take at some step, and which of them a played run took."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from djinn.pipelines.attempts import INFRASTRUCTURE, NOT_RETRYABLE
from djinn.pipelines.expression import study_expression
from djinn.pipelines.flow import Finish, Past, Skip, Start, Status, Tell
from djinn.pipelines.history import Decision
from djinn.pipelines.results import UNMATCHED, action_of, folded
from djinn.pipelines.schema import Pipeline, Step
from djinn.pipelines.simulation.play import Played, Verdict
from djinn.pipelines.simulation.routes import circles, may_match_none
from djinn.pipelines.simulation.values import Values

BEGINS, NO_KEY, GOES_ON, TOLD = "it begins", "no key matches", "the run goes on to it", "the agent is told"
HAS_TO_MATCH = "no key matches, and it fails"
ASKS_TOO_OFTEN, COMES_TOO_OFTEN = "it asks for another try too often", "the token comes too often"
NONE, ONE, SEVERAL = "no items", "one item", "several items"
TRIED_AGAIN, FAILS, ITEM_FAILS = "a failure is tried again", "it fails for good", "an item fails for good"
TOLERATED, PASSED_BY = "it fails and the run goes on", "it is skipped because of what it needs"
TRUE, FALSE, TAKEN = "the condition is true", "the condition is not true", "the result is given"
VERDICTS: tuple[Verdict, ...] = ("approved", "rejected", "expired")


@dataclass(frozen=True, order=True)
class Branch:
    """One way at a step. `key` is the path of the key in the file that makes it one; empty is the step itself."""

    step: str
    key: tuple[str, ...]
    word: str

    def __str__(self) -> str:
        return f"{self.place}: {self.word}"

    @property
    def place(self) -> str:
        """Step and key, in the words of a problem."""
        return ": ".join([f"step {self.step}", *([f"key {'.'.join(self.key)}"] if self.key else [])])


def branches_of(pipeline: Pipeline, values: Values) -> tuple[Branch, ...]:
    """Every branch, in the order of the steps. What the file itself rules out, such as an empty list by a schema's
    `minItems`, is none."""
    found = [branch for step in pipeline.steps for branch in _of_step(pipeline, step, values)]
    if pipeline.family == "routed":
        for circle in circles(pipeline):
            narrow = min(circle, key=lambda name: pipeline.step(name).max_visits)
            found.append(Branch(narrow, ("maxVisits",), COMES_TOO_OFTEN))
    return tuple(dict.fromkeys(found))


def _of_step(pipeline: Pipeline, step: Step, values: Values) -> Iterator[Branch]:
    yield Branch(step.id, (), BEGINS)
    yield from _of_results(step, values)
    yield from _of_items(step, values)
    yield from _of_failures(step)
    if step.approve is not None:
        words = VERDICTS if step.approve.expires_seconds is not None else VERDICTS[:2]
        yield from (Branch(step.id, ("approve",), word) for word in words)
    if step.when:
        yield from (Branch(step.id, ("when",), word) for word in (TRUE, FALSE))
    if not decides_for_itself(step) and any(_may_block(pipeline, pipeline.step(name)) for name in step.needs):
        yield Branch(step.id, ("needs",), PASSED_BY)


def _of_results(step: Step, values: Values) -> Iterator[Branch]:
    may_be_none = may_match_none(step) and values.outputs_for(step, "") is not None
    for path, route in step.actions:
        if path == ("else",) and not may_be_none:
            continue
        yield Branch(step.id, path, NO_KEY if path == ("else",) else TAKEN)
        if route.retry:
            yield Branch(step.id, (*path, "maxRetries"), ASKS_TOO_OFTEN)
        if route.notify is not None:
            yield Branch(step.id, (*path, "notify"), TOLD)
    if may_be_none and step.otherwise is None:
        yield Branch(step.id, ("onResult",), HAS_TO_MATCH if step.must_match else NO_KEY)
    if step.on_complete is not None and (step.loop is None or step.loop.on_all_complete is None):
        yield Branch(step.id, ("onComplete",), GOES_ON)


def _of_items(step: Step, values: Values) -> Iterator[Branch]:
    key = items_key(step)
    if key:
        counts = values.counts(step)
        words = {NONE: 0 in counts, ONE: 1 in counts, SEVERAL: any(count > 1 for count in counts)}
        yield from (Branch(step.id, key, word) for word, may_be in words.items() if may_be)
    if step.has_items:
        yield Branch(step.id, key, ITEM_FAILS)
    if step.loop is not None and step.loop.on_each_complete is not None:
        yield Branch(step.id, ("loop", "onEachComplete"), GOES_ON)
    if step.loop is not None and step.loop.on_all_complete is not None:
        yield Branch(step.id, ("loop", "onAllComplete"), GOES_ON)


def _of_failures(step: Step) -> Iterator[Branch]:
    if step.continue_on_error:
        yield Branch(step.id, ("continueOnError",), TOLERATED)
    elif step.kind != "approve" and not step.has_items:
        yield Branch(step.id, (), FAILS)
    if step.needs_container and step.retries.max > 0:
        yield Branch(step.id, ("retries",), TRIED_AGAIN)


def items_key(step: Step) -> tuple[str, ...]:
    """The key that says what the step runs once for each of; empty for a step without items."""
    if step.loop is not None:
        return ("loop", "over")
    if step.matrix:
        return ("matrix",)
    return ("foreach",) if step.over else ()


def decides_for_itself(step: Step) -> bool:
    """Whether the step's condition is asked even when what it needs has failed."""
    return bool(step.when) and "steps" in study_expression(step.when).names


def failure_of(step: Step) -> str:
    """The reason with which the step fails in a play; one that is tried again, when there is one."""
    if step.kind == "uses":
        return "child"
    wanted = [reason for reason in step.retries.on if reason not in NOT_RETRYABLE | INFRASTRUCTURE]
    return wanted[0] if wanted else "error"


def _may_block(pipeline: Pipeline, step: Step) -> bool:
    """Whether the step may end so that what needs it is skipped."""
    if not step.continue_on_error or step.when:
        return True
    return any(_may_block(pipeline, pipeline.step(name)) for name in step.needs)


# --- What a play took -------------------------------------------------------------------------------------------------
def seen_in(pipeline: Pipeline, played: Played) -> frozenset[Branch]:
    """The branches that the run took."""
    return frozenset(_Look(pipeline, played).branches())


class _Look:
    """One look at a played run."""

    def __init__(self, pipeline: Pipeline, played: Played) -> None:
        self.pipeline, self.played, self.history = pipeline, played, played.history
        self.last: Mapping[tuple[str, str, int], Past] = {(p.step, p.item, p.visit): p for p in played.history}

    def branches(self) -> Iterator[Branch]:
        for past in self.history:
            yield from self._row(self.pipeline.step(past.step), past)
        for past in self.last.values():
            if past.status is Status.FAILED and not self.played.is_cut:
                yield from self._failed(self.pipeline.step(past.step), past)
        for count, decision in self.played.applied:
            yield from self._decision(count, decision)
        for step in self.pipeline.steps:
            yield from self._items(step)

    def _row(self, step: Step, past: Past) -> Iterator[Branch]:
        if past.status is Status.SKIPPED:
            return
        path, route = action_of(step, past)
        if route is not None:
            yield Branch(step.id, path, NO_KEY if path == ("else",) else TAKEN)
        elif past.status is Status.SUCCEEDED and step.on_result:
            yield Branch(step.id, ("onResult",), NO_KEY)
        elif past.reason == UNMATCHED:
            yield Branch(step.id, ("onResult",), HAS_TO_MATCH)
        if step.approve is not None:
            said = {folded(value) for value in past.outputs.values()} | {past.reason}
            yield from (Branch(step.id, ("approve",), word) for word in VERDICTS if word in said)

    def _failed(self, step: Step, past: Past) -> Iterator[Branch]:
        if step.continue_on_error:
            yield Branch(step.id, ("continueOnError",), TOLERATED)
        if past.reason not in ("input", UNMATCHED):
            word = ITEM_FAILS if step.has_items else FAILS
            yield Branch(step.id, items_key(step) if step.has_items else (), word)

    def _decision(self, count: int, decision: Decision) -> Iterator[Branch]:
        if isinstance(decision, Tell):
            past = self.history[decision.source - 1]
            path, _ = action_of(self.pipeline.step(past.step), past)
            yield Branch(past.step, (*path, "notify"), TOLD)
        elif isinstance(decision, Start):
            yield from self._started(decision)
            yield from self._routed(decision.because)
        elif isinstance(decision, Skip):
            yield from self._skipped(self.pipeline.step(decision.step), decision)
            yield from self._routed(decision.because)
        elif isinstance(decision, Finish) and decision.reason == "retries":
            last = self.history[count - 1]
            path, _ = action_of(self.pipeline.step(last.step), last)
            yield Branch(last.step, (*path, "maxRetries"), ASKS_TOO_OFTEN)
        elif isinstance(decision, Finish) and decision.reason == "visits":
            for circle in circles(self.pipeline):
                if decision.message.removeprefix("step ").split()[0].partition("[")[0] in circle:
                    narrow = min(circle, key=lambda name: self.pipeline.step(name).max_visits)
                    yield Branch(narrow, ("maxVisits",), COMES_TOO_OFTEN)

    def _started(self, start: Start) -> Iterator[Branch]:
        yield Branch(start.step, (), BEGINS)
        if self.pipeline.step(start.step).when:
            yield Branch(start.step, ("when",), TRUE)
        if start.because.startswith("retry after "):
            yield Branch(start.step, ("retries",), TRIED_AGAIN)

    def _skipped(self, step: Step, skip: Skip) -> Iterator[Branch]:
        if skip.item_value == []:
            yield Branch(step.id, items_key(step), NONE)
        elif skip.because.startswith("its condition is not true"):
            yield Branch(step.id, ("when",), FALSE)
        else:
            yield Branch(step.id, ("needs",), PASSED_BY)

    def _routed(self, because: str) -> Iterator[Branch]:
        word, _, name = because.partition(" of ")
        paths = {"onComplete": ("onComplete",), "onEachComplete": ("loop", word), "onAllComplete": ("loop", word)}
        if word in paths:
            yield Branch(name, paths[word], GOES_ON)

    def _items(self, step: Step) -> Iterator[Branch]:
        """How many items the step had, each time that it ran for all of them."""
        counts: dict[str, int] = {}
        for past in self.history:
            if past.step == step.id and past.item and past.status is not Status.SKIPPED:
                frame, _, index = past.item.rpartition(".")
                counts[frame] = max(counts.get(frame, 0), int(index) + 1)
        for frame, count in counts.items():
            if count > 1:
                yield Branch(step.id, items_key(step), SEVERAL)
            elif self._has_left(step, f"{frame}.0" if frame else "0"):
                yield Branch(step.id, items_key(step), ONE)

    def _has_left(self, step: Step, item: str) -> bool:
        """Whether the run went on from the only item."""
        if self.played.finish.status == "succeeded":
            return True
        numbers = [number for number, past in enumerate(self.history) if past.step == step.id and past.item == item]
        rest = self.history[numbers[-1] :]
        return any(past.item != item and not past.item.startswith(f"{item}.") for past in rest)
