"""Where the token of a routed pipeline is among the items of loops: which loop an item is one of, and what of it is
left to do. An item is `2`, or `2.0` in a loop within a loop."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from djinn.pipelines.history import History, Past
from djinn.pipelines.items import NoItems, items_of
from djinn.pipelines.loops import bodies, entry_of, loop_of
from djinn.pipelines.names import flat_outputs
from djinn.pipelines.schema import JSON, Pipeline, Step

Undone = tuple[Step, str, JSON]
"""A loop, the path of one of its items, and the item."""


class Frames:
    """The loops of one run, as its history shows them."""

    def __init__(self, pipeline: Pipeline, history: History, inputs: Mapping[str, JSON]) -> None:
        self.pipeline, self.history, self.inputs = pipeline, history, inputs
        self.bodies = bodies(pipeline)

    def loop_of(self, item: str) -> Step | None:
        """The loop that the item is one of; None outside of loops."""
        return loop_of(self.pipeline, self.history, item) if item else None

    def value_of(self, item: str) -> JSON:
        return next((past.item_value for past in reversed(self.history) if item and past.item == item), None)

    def items(self, loop: Step, frame: str) -> list[JSON]:
        """The items of the loop within the item `frame`, as they were when the token came to it. Raises `NoItems`."""
        entry = entry_of(self.history, loop, frame, self.bodies.get(loop.id, frozenset()))
        return items_of(loop, self._names(self.history[:entry], frame))

    def items_now(self, loop: Step, frame: str) -> list[JSON]:
        """The items of a loop that the token comes to now. Raises `NoItems`."""
        return items_of(loop, self._names(self.history, frame))

    def of_target(self, item: str, target: str) -> str:
        """The item, or the next one around it, to which the target belongs: its loop's step, or a step for its items.
        Empty when it belongs to none of them."""
        loops = [(frame, loop) for frame in _inside_out(item) if (loop := self.loop_of(frame)) is not None]
        own = [frame for frame, loop in loops if loop.id == target]
        return (own or [frame for frame, loop in loops if target in self.bodies.get(loop.id, ())] or [""])[0]

    def undone(self, last: Past, target: str | None) -> tuple[Undone, ...]:
        """The items that were not begun of the loops that the way from `last` to the target leaves; without a target it
        leaves the innermost one."""
        stays = self.of_target(last.item, target) if target is not None else last.item.rpartition(".")[0]
        found: list[Undone] = []
        for path in _inside_out(last.item):
            loop = self.loop_of(path)
            if path == stays or loop is None:
                break
            found += self._behind(loop, path)
        return tuple(found)

    def _behind(self, loop: Step, path: str) -> Iterator[Undone]:
        """The items of the loop behind the one of this path."""
        frame, _, index = path.rpartition(".")
        try:
            items = self.items(loop, frame)
        except NoItems:  # the list is gone: there is nothing to name
            return
        for number in range(int(index) + 1, len(items)):
            yield loop, f"{frame}.{number}" if frame else str(number), items[number]

    def _names(self, history: History, item: str) -> dict[str, JSON]:
        names = {**self.inputs, **flat_outputs(history), "inputs": dict(self.inputs)}
        return {**names, "current_item": self.value_of(item)} if item else names


def _inside_out(item: str) -> Iterator[str]:
    """The item and those around it, the innermost first."""
    while item:
        yield item
        item = item.rpartition(".")[0]
