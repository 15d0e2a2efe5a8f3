"""What `simulate` found, as lines of text."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from djinn.pipelines.document import Items, Node, Scalar, Table, line_of, read_document
from djinn.pipelines.history import named
from djinn.pipelines.report import Report
from djinn.pipelines.simulate import Coverage, Event, Walk

_ENDS = ("step_skipped", "step_finished")
_LONGEST = 200


def missing(coverage: Coverage, file: str, text: bytes) -> Iterator[str]:
    """A line for each branch that no play took: `file:line: step: key: what`; `text` is what stands in the file."""
    nodes = _steps(text)
    for branch in coverage.uncovered:
        line = line_of(nodes[branch.step], *branch.key) if branch.step in nodes else 1
        yield f"{file}:{line}: {branch.place}: not covered: {branch.word}"


def story(walk: Walk) -> Iterator[str]:
    """A played run: what it was for, how each step run ended and when, the end, and what it found."""
    yield f"for {walk.aim.place}: {walk.aim.word}"
    if walk.inputs:
        yield f"  inputs {_short(dict(walk.inputs))}"
    for event in walk.played.events:
        if event.type in _ENDS:
            yield f"  {_clock(event.at)} {_ended(event)}"
    finish = walk.played.finish
    why = ": ".join(filter(None, (finish.message, finish.reason if finish.step else "")))
    yield f"  {_clock(walk.played.seconds)} the run {finish.status}" + (f" ({why})" if why else "")
    yield from (f"  found {branch.place}: {branch.word}" for branch in walk.found)


def _ended(event: Event) -> str:
    data = event.data
    name = named(str(data["step"]), str(data["item"]))
    tries = f" visit {data['visit']} attempt {data['attempt']}"
    if event.type == "step_skipped":
        return f"{name}{tries} skipped: {data['because']}"
    reason = f" ({data['reason']})" if data["reason"] else ""
    outputs = f" {_short(data['outputs'])}" if data["outputs"] else ""
    return f"{name}{tries} {data['status']}{reason}{outputs}"


def _short(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{rest:02d}"


def _steps(text: bytes) -> Mapping[str, Node]:
    """The nodes of the steps, by step id; the text is one that has loaded."""
    document = read_document(text, Report(""))
    listed = document.entries.get("steps") if document is not None else None
    items = listed.items if isinstance(listed, Items) else []
    found = {}
    for node in items:
        name = node.entries.get("id") if isinstance(node, Table) else None
        if isinstance(name, Scalar):
            found[name.text] = node
    return found
