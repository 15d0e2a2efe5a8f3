"""What every check looks at, and how it reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from djinn.pipelines.document import Table, line_of
from djinn.pipelines.loops import bodies
from djinn.pipelines.reading.steps import StepSource
from djinn.pipelines.report import Report
from djinn.pipelines.schema import Pipeline, Step


@dataclass(frozen=True)
class Checking:
    """One file while it is checked. `sources` are its steps in the order of the file."""

    pipeline: Pipeline
    document: Table
    sources: Sequence[StepSource]
    report: Report

    @cached_property
    def steps(self) -> dict[str, Step]:
        """The steps by id, in the order of the file; the first one keeps a doubled id."""
        found: dict[str, Step] = {}
        for source in self.sources:
            if source.step.id:
                found.setdefault(source.step.id, source.step)
        return found

    @cached_property
    def bodies(self) -> dict[str, frozenset[str]]:
        """For each loop, by its step, the steps for its items: the very ones that a run takes for them."""
        return bodies(self.pipeline) if self.pipeline.family == "routed" else {}

    @cached_property
    def item_steps(self) -> frozenset[str]:
        """The ids of all steps that may run for an item of some loop, beside the loops themselves."""
        return frozenset[str]().union(*self.bodies.values())

    @cached_property
    def first(self) -> Step | None:
        """The step that a routed pipeline begins with."""
        return self.pipeline.steps[0] if self.pipeline.steps else None

    def error(self, source: StepSource, message: str, *path: str) -> None:
        """An error at the key of a step that the path leads to."""
        self.report.error(line_of(source.node, *path), message, step=source.step.id, key=_key(path))

    def warn(self, source: StepSource, message: str, *path: str) -> None:
        """A warning at the key of a step that the path leads to."""
        self.report.warn(line_of(source.node, *path), message, step=source.step.id, key=_key(path))


def _key(path: Sequence[str]) -> str:
    return ".".join(part[:64] for part in path)
