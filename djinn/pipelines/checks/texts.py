"""The texts of a file in which names are used: templates, expressions, names of outputs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto

from djinn.pipelines.document import Items, Node, Scalar, Table
from djinn.pipelines.reading.steps import StepSource
from djinn.pipelines.schema import DIFF


class Use(Enum):
    """How a text uses names."""

    TEMPLATE = auto()
    SCRIPT = auto()
    EXPRESSION = auto()
    NAME = auto()


@dataclass(frozen=True)
class Text:
    """One text of a step or of the file. `has_item` says whether it is used for one item of several."""

    node: Scalar
    key: str
    use: Use
    has_item: bool = True


def texts_of_document(document: Table) -> Iterator[Text]:
    """The templates of the file itself, over its inputs."""
    for path in (("workspace", "repository"), ("workspace", "ref"), ("concurrency", "group")):
        yield from _text(document, Use.TEMPLATE, *path)
    yield from _text(document, Use.TEMPLATE, "concurrency")


def texts_of(source: StepSource) -> Iterator[Text]:
    """The texts of a step."""
    node, step = source.node, source.step
    yield from _text(node, Use.TEMPLATE, "input")
    if not step.input and step.kind in ("agent", "approve"):
        yield from _text(node, Use.TEMPLATE, "description")
    yield from _text(node, Use.SCRIPT, "run")
    for name in step.given:
        yield from _text(node, Use.TEMPLATE, "with", name)
    for path, route in step.actions:
        if route.notify is not None:
            yield from _text(node, Use.TEMPLATE, *path, "notify", "message")
    for place in (("when",), ("foreach",), ("foreach", "over"), ("loop", "over")):
        yield from _text(node, Use.EXPRESSION, *place, has_item=False)
    yield from _shown(node)


def _shown(node: Table) -> Iterator[Text]:
    show = _at(node, "approve", "show")
    for item in show.items if isinstance(show, Items) else [show]:
        if isinstance(item, Scalar) and item.value is not None and item.text != DIFF:
            yield Text(item, "approve.show", Use.NAME)


def _text(node: Node, use: Use, *path: str, has_item: bool = True) -> Iterator[Text]:
    found = _at(node, *path)
    if isinstance(found, Scalar) and found.value is not None:
        yield Text(found, ".".join(part[:64] for part in path), use, has_item)


def _at(node: Node, *path: str) -> Node | None:
    found: Node | None = node
    for key in path:
        found = found.entries.get(key) if isinstance(found, Table) else None
    return found
