"""The routed family: one token walks, steps may be visited again, loops run a step once for each item."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from djinn.pipelines.attempts import after_failure, asked_again
from djinn.pipelines.frames import Frames, Undone
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
    tries_of,
    visits_of,
)
from djinn.pipelines.items import NoItems
from djinn.pipelines.loops import after_loop, targets
from djinn.pipelines.results import UNMATCHED, action_of, unmatched
from djinn.pipelines.schema import JSON, Pipeline, Route, Step

LONGEST_PATH = 90


def next_routed(pipeline: Pipeline, history: History, inputs: Mapping[str, JSON]) -> tuple[Decision, ...]:
    """What follows the last step run; nothing of the history is open."""
    return _Walk(pipeline, history, inputs).decide()


def not_reached(pipeline: Pipeline, history: History) -> Iterator[Blocked]:
    """The steps that the token has not come to yet, each with the step that it follows."""
    at = history[-1].step if history else pipeline.first_step.id
    seen, waiting = {at, *(past.step for past in history)}, [at]
    while waiting:
        before = waiting.pop(0)
        for target, condition in targets(pipeline, pipeline.step(before)):
            if target not in seen:
                seen.add(target)
                waiting.append(target)
                text = f"{before} has to end first"
                yield Blocked(target, f"follows {before}{condition}", blockers=(Blocker("step", text, before),))


class _Walk:
    """One decision: where the token is, and where it goes."""

    def __init__(self, pipeline: Pipeline, history: History, inputs: Mapping[str, JSON]) -> None:
        self.pipeline = pipeline
        self.history = history
        self.inputs = inputs
        self.frames = Frames(pipeline, history, inputs)

    def decide(self) -> tuple[Decision, ...]:
        if not self.history:
            return (self._enter(self.pipeline.first_step, "", None, "first step", ()),)
        left = self._left_on_purpose()
        if left is not None:
            return self._after_leaving(left)
        last = self.history[-1]
        step = self.pipeline.step(last.step)
        if last.status is Status.FAILED:
            return (after_failure(step, last, self.history, lane=""),)
        if last.status is Status.CANCELLED:
            return (Finish("cancelled", "cancelled", f"step {named(step.id, last.item)} was cancelled"),)
        return self._after_success(step, last)

    def _after_success(self, step: Step, last: Past) -> tuple[Decision, ...]:
        path, route = action_of(step, last)
        key, told = "".join(path[-1:]), self._told(route)
        problem = unmatched(step, last.outputs) if last.status is Status.SUCCEEDED else ""
        if problem:  # settled before results had to match
            return (Finish("failed", UNMATCHED, f"step {named(step.id, last.item)}: {problem}", step.id, last.item),)
        if route is not None and route.retry:
            times = sum(self._asks_again(step, past) for past in self._tries(last))
            return (*told, asked_again(last, key, most=route.max_retries, times=times, lane=""))
        if step.loop is not None:
            return (*told, self._after_item(step, last))
        if route is not None and route.continue_loop:
            return (*told, self._next_item(last, f"continueLoop of {step.id} ({key})"))
        if route is not None and route.breaks:
            return (*told, *self._leave(step, last, key, route))
        if route is not None and route.goto is not None:
            return (*told, self._go(route.goto, last, f"goto from {step.id} ({key})"))
        return (*told, self._after_any_result(step, last))

    def _after_any_result(self, step: Step, last: Past) -> Decision:
        loop = self.frames.loop_of(last.item)
        if step.on_complete is not None and loop is not None and step.on_complete == loop.id:
            return self._next_item(last, f"onComplete of {step.id}")
        if step.on_complete is not None:
            return self._go(step.on_complete, last, f"onComplete of {step.id}")
        if loop is not None:
            return self._next_item(last, f"the end of the item's steps at {step.id}")
        following = None if self.pipeline.is_routed else self.pipeline.following(step.id)
        if following is not None:
            return self._go(following.id, last, f"next after {step.id}")
        return Finish("succeeded", "", "")

    def _after_item(self, step: Step, last: Past) -> Decision:
        """After the loop's own step: the steps for this item, or the next item, or what follows the loop."""
        assert step.loop is not None
        if last.status is Status.SKIPPED:
            return self._after_loop(step, last, last.item)
        if step.loop.on_each_complete:
            target = self.pipeline.step(step.loop.on_each_complete)
            because, bases = f"onEachComplete of {step.id}", _bases(last, self)
            begin = self._visit if target.id == step.id else self._enter
            return begin(target, last.item, last.item_value, because, bases)
        return self._next_item(last, f"next item of {step.id}")

    def _next_item(self, last: Past, because: str) -> Decision:
        loop = self.frames.loop_of(last.item)
        if loop is None:
            message = f"step {last.step} continues a loop, but it was not reached inside of one"
            return Finish("failed", "error", message)
        frame, _, index = last.item.rpartition(".")
        try:
            items = self.frames.items(loop, frame)
        except NoItems as exc:
            return Finish("failed", "input", str(exc))
        following = int(index) + 1
        if following >= len(items):
            return self._after_loop(loop, last, frame)
        path = f"{frame}.{following}" if frame else str(following)
        return self._visit(loop, path, items[following], because, _bases(last, self))

    def _after_loop(self, loop: Step, last: Past, frame: str) -> Decision:
        assert loop.loop is not None
        value, bases = self.frames.value_of(frame), _bases(last, self)
        outside = Past(loop.id, last.visit, last.attempt, last.status, item=frame, item_value=value, bases=bases)
        target = after_loop(loop)
        around = self.frames.loop_of(frame) if frame else None
        if target is not None and around is not None and target == around.id:
            return self._next_item(outside, f"the end of the loop {loop.id}")
        if target is not None:
            word = "onAllComplete" if loop.loop.on_all_complete else "onComplete"
            return self._go(target, outside, f"{word} of {loop.id}", bases=outside.bases)
        if frame:
            return self._next_item(outside, f"the end of the loop {loop.id}")
        following = None if self.pipeline.is_routed else self.pipeline.following(loop.id)
        if following is not None:
            return self._go(following.id, outside, f"next after {loop.id}", bases=outside.bases)
        return Finish("succeeded", "", "")

    def _go(self, target_id: str, last: Past, because: str, *, bases: tuple[int, ...] | None = None,
            leaves: bool = False) -> Decision:  # fmt: skip
        """To a step by a route: inside of the item's steps it stays at the item. Only with `leaves` may it come to a
        step outside of a loop that has other items to do."""
        target = self.pipeline.step(target_id)
        bases = _bases(last, self) if bases is None else bases
        undone = () if leaves else self.frames.undone(last, target.id)
        if undone:
            return self._lost(last, target.id, undone)
        item = self.frames.of_target(last.item, target.id)
        begin = self._visit if target == self.frames.loop_of(item) else self._enter
        return begin(target, item, self.frames.value_of(item), because, bases)

    def _enter(self, target: Step, item: str, value: JSON, because: str, bases: tuple[int, ...]) -> Decision:
        """To a step, and when it is a loop, to its first item."""
        if target.loop is None:
            return self._visit(target, item, value, because, bases)
        visit = visits_of(self.history, target.id, item) + 1
        try:
            items = self.frames.items_now(target, item)
            if len(item) > LONGEST_PATH:
                raise NoItems(f"the loops around {target.id} are nested too deeply")
        except NoItems as exc:
            return Refuse(target.id, visit, 1, "input", str(exc), item=item, bases=bases)
        if not items and visit > target.max_visits:
            return self._visit(target, item, value, because, bases)  # too often, also without items
        if not items:
            return Skip(target.id, visit, f"{target.loop.over} is an empty list", item, [], bases)
        return self._visit(target, f"{item}.0" if item else "0", items[0], because, bases)

    def _visit(self, step: Step, item: str, value: JSON, because: str, bases: tuple[int, ...]) -> Decision:
        visits = visits_of(self.history, step.id, item)
        if visits >= step.max_visits:
            message = (
                f"step {named(step.id, item)} was visited {visits} times"
                f" and may be visited {step.max_visits} times ({because})"
            )
            return Finish("failed", "visits", message)
        return Start(step.id, visits + 1, 1, 0.0, because, item=item, item_value=value, bases=bases)

    # --- Leaving a loop -----------------------------------------------------------------------------------------------
    def _leave(self, step: Step, last: Past, key: str, route: Route) -> tuple[Decision, ...]:
        """Out of the loop by an action that says so. The items that are not done are passed by, each as a skip."""
        if self.frames.loop_of(last.item) is None:
            message = f"step {last.step} breaks a loop, but it was not reached inside of one"
            return (Finish("failed", "error", message),)
        because = f"not done: {named(step.id, last.item)} left the loop ({key})"
        skips = tuple(
            Skip(loop.id, visits_of(self.history, loop.id, item) + 1, because, item, value, _bases(last, self))
            for loop, item, value in self.frames.undone(last, route.goto)
        )
        return skips or (self._go_on_outside(step, last, key, route),)

    def _left_on_purpose(self) -> Past | None:
        """The step run that has left a loop, when all that came after it are the items which are not done."""
        count = next((n for n, past in enumerate(reversed(self.history)) if past.status is not Status.SKIPPED), 0)
        if not 0 < count < len(self.history):
            return None
        last = self.history[-1 - count]
        _, route = action_of(self.pipeline.step(last.step), last)
        if route is None or not route.breaks:
            return None
        undone = [(loop.id, item) for loop, item, _ in self.frames.undone(last, route.goto)]
        return last if [(past.step, past.item) for past in self.history[-count:]] == undone else None

    def _after_leaving(self, last: Past) -> tuple[Decision, ...]:
        step = self.pipeline.step(last.step)
        path, route = action_of(step, last)
        assert route is not None
        return (self._go_on_outside(step, last, path[-1], route),)

    def _go_on_outside(self, step: Step, last: Past, key: str, route: Route) -> Decision:
        if route.goto is not None:
            return self._go(route.goto, last, f"goto from {step.id} ({key})", leaves=True)
        loop = self.frames.loop_of(last.item)
        assert loop is not None
        return self._after_loop(loop, last, last.item.rpartition(".")[0])

    def _lost(self, last: Past, target: str, undone: tuple[Undone, ...]) -> Finish:
        loops = " and ".join(dict.fromkeys(loop.id for loop, _, _ in undone))
        message = (
            f"step {named(last.step, last.item)} leads out of the loop of {loops} to {target} while"
            f" {len(undone)} more items are not done; an action that means to leave says 'break: true'"
        )
        return Finish("failed", "error", message)

    # --- Results ------------------------------------------------------------------------------------------------------
    def _told(self, route: Route | None) -> tuple[Tell, ...]:
        if route is None or route.notify is None:
            return ()
        return (Tell(route.notify.agent, route.notify.message, len(self.history)),)

    def _tries(self, last: Past) -> list[Past]:
        return tries_of(self.history, last.step, last.item, last.visit)

    def _asks_again(self, step: Step, past: Past) -> bool:
        route = action_of(step, past)[1]
        return route is not None and route.retry


def _bases(last: Past, walk: _Walk) -> tuple[int, ...]:
    """Whose files the next step begins with: what the last step left, or what it began with when it has no files."""
    numbers = [number for number, past in enumerate(walk.history, 1) if past is last]
    has_files = last.status is Status.SUCCEEDED and walk.pipeline.step(last.step).kind != "approve"
    return (numbers[0],) if has_files and numbers else last.bases
