"""What loading gives: a pipeline that can run, or a folder of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from djinn.documents.nodes import line_of
from djinn.documents.problems import Problem
from djinn.pipelines.reading.steps import StepSource
from djinn.pipelines.schema import Pipeline, Step


@dataclass(frozen=True)
class Used:
    """A step with `uses`, and where its keys stand in the file."""

    step: Step
    line: int
    given_lines: Mapping[str, int] = field(default_factory=dict)
    outputs_line: int = 0


@dataclass(frozen=True)
class Loaded:
    """A pipeline that can run. `digest` is the SHA-256, in hex, of its canonical snapshot."""

    pipeline: Pipeline
    digest: str
    warnings: tuple[Problem, ...]
    path: str
    used: tuple[Used, ...] = ()
    """The steps that use other pipelines; only a whole folder tells whether those are there."""


@dataclass(frozen=True)
class Catalogue:
    """`pipelines` by pipeline id; `problems` by the name of the file that did not load."""

    pipelines: Mapping[str, Loaded]
    problems: Mapping[str, tuple[Problem, ...]]


def used_in(sources: Iterable[StepSource]) -> tuple[Used, ...]:
    """The steps that use other pipelines."""
    return tuple(
        Used(
            step=source.step,
            line=line_of(source.node, "uses"),
            given_lines={name: line_of(source.node, "with", name) for name in source.step.given},
            outputs_line=line_of(source.node, "outputs"),
        )
        for source in sources
        if source.step.kind == "uses" and source.step.uses
    )
