"""Pipelines from text, from a file, from a folder. Everything wrong with a file is found in one reading."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType

from djinn.documents.nodes import MAX_BYTES, Table, read_document
from djinn.documents.problems import Problem
from djinn.documents.report import Report, quoted
from djinn.documents.words import IDENTIFIER_RULE, is_identifier
from djinn.pipelines import readers as read
from djinn.pipelines.checks import check_pipeline
from djinn.pipelines.checks.order import in_order
from djinn.pipelines.errors import PipelineInvalid
from djinn.pipelines.fields import Fields
from djinn.pipelines.folder import check_folder
from djinn.pipelines.inputs import read_inputs
from djinn.pipelines.loaded import Catalogue, Loaded, used_in
from djinn.pipelines.reading.common import read_defaults
from djinn.pipelines.reading.document import (
    IDLE_PIPELINE,
    PIPELINE_KEYS,
    read_agents,
    read_budget,
    read_concurrency,
    read_priority,
    read_workspace,
)
from djinn.pipelines.reading.steps import StepSource, read_steps
from djinn.pipelines.schema import Pipeline, digest

__all__ = ["Catalogue", "Loaded", "load_file", "load_folder", "load_text"]

SUFFIXES = (".yaml", ".yml")


Broken = Mapping[str, str]
"""Agents that cannot be used, by id, each with what is wrong."""
NONE_BROKEN: Broken = MappingProxyType({})
Stamp = tuple[int, int, int, int, tuple[frozenset[str] | None, frozenset[tuple[str, str]]]]
Outcome = Loaded | tuple[Problem, ...]

_cache: dict[Path, tuple[Stamp, Outcome]] = {}


def load_text(
    text: str | bytes, *, file: str, known_agents: Collection[str] | None = None, broken_agents: Broken = NONE_BROKEN
) -> Loaded:
    """The pipeline in a text; raises `PipelineInvalid` with all problems. `known_agents` None is not checked;
    `broken_agents` are those that cannot be used, each with what is wrong."""
    report = Report(file)
    document = read_document(text, report)
    if document is None:
        raise PipelineInvalid(report.problems)
    pipeline, sources = _pipeline(document, report, known_agents, broken_agents)
    if report.has_errors:
        raise PipelineInvalid(report.problems)
    return Loaded(pipeline, digest(pipeline), report.problems, file, used_in(sources))


def load_file(
    path: Path, *, known_agents: Collection[str] | None = None, broken_agents: Broken = NONE_BROKEN
) -> Loaded:
    """The pipeline in a file, of which no more is read than a pipeline may have; raises `PipelineInvalid`."""
    content = _read_bytes(path, str(path))
    return load_text(content, file=str(path), known_agents=known_agents, broken_agents=broken_agents)


def load_folder(
    path: Path, *, known_agents: Collection[str] | None = None, broken_agents: Broken = NONE_BROKEN
) -> Catalogue:
    """Every `*.yaml` and `*.yml` directly in the folder, in the order of names. The first file keeps a doubled id.

    A pipeline whose `uses` do not fit the others of the folder is a problem, too.
    """
    pipelines: dict[str, Loaded] = {}
    problems: dict[str, tuple[Problem, ...]] = {}
    try:
        files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES and not file.name.startswith("."))
    except OSError as exc:
        return Catalogue({}, {path.name: (Problem(str(path), 1, f"the folder cannot be read: {exc.strerror}"),)})
    agents = None if known_agents is None else frozenset(known_agents)
    for file in files:
        outcome = _outcome(file, agents, broken_agents)
        if isinstance(outcome, Loaded) and outcome.pipeline.id in pipelines:
            other = pipelines[outcome.pipeline.id].path
            outcome = (Problem(outcome.path, 1, f"{other} already has the id {outcome.pipeline.id!r}", key="id"),)
        if isinstance(outcome, Loaded):
            pipelines[outcome.pipeline.id] = outcome
        else:
            problems[file.name] = outcome
    _forget_others(path, files)
    good, unfit = check_folder(pipelines, {Path(name).stem for name in problems})
    problems.update({Path(pipelines[name].path).name: found for name, found in unfit.items()})
    return Catalogue(good, dict(sorted(problems.items())))


def _read_bytes(path: Path, file: str) -> bytes:
    """The file's bytes, one more than allowed when it is too large; `file` is its name in an error."""
    try:
        if not path.is_file():
            raise PipelineInvalid([Problem(file, 1, "there is no such file, or it is not a regular one")])
        with path.open("rb") as stream:
            return stream.read(MAX_BYTES + 1)
    except OSError as exc:
        raise PipelineInvalid([Problem(file, 1, f"the file cannot be read: {exc.strerror}")]) from exc


def _pipeline(
    document: Table, report: Report, known_agents: Collection[str] | None, broken_agents: Broken
) -> tuple[Pipeline, list[StepSource]]:
    fields = Fields(document, report, PIPELINE_KEYS, idle=IDLE_PIPELINE)
    pipeline_id = _id(fields)
    defaults = read_defaults(fields)
    sources = read_steps(fields, defaults.step)
    pipeline = Pipeline(
        id=pipeline_id,
        name=fields.read("name", read.text, pipeline_id),
        version=fields.read("version", read.text, ""),
        description=fields.read("description", read.text, ""),
        inputs=read_inputs(fields),
        workspace=read_workspace(fields),
        steps=tuple(source.step for source in in_order(sources, report)),
        agents=read_agents(fields),
        concurrency=read_concurrency(fields),
        priority=read_priority(fields),
        tools=defaults.tools,
        budget=read_budget(fields),
    )
    check_pipeline(pipeline, document, sources, known_agents, broken_agents, report)
    return pipeline, sources


def _id(fields: Fields) -> str:
    """The key `id`, or else the file's name without its ending."""
    path = Path(fields.report.file)
    stem = path.stem
    if not fields.has("id") and not is_identifier(stem):
        what = f"the file's name {quoted(path.name)} cannot be the pipeline's id"
        fields.error(f"{what}, which is {IDENTIFIER_RULE}; rename it or write the key 'id'", "id")
    return fields.read("id", read.identifier, stem)


def _outcome(file: Path, agents: frozenset[str] | None, broken: Broken) -> Outcome:
    name = f"{file.parent.name}/{file.name}"
    try:
        found = file.stat()
        about = (agents, frozenset(broken.items()))
        stamp = (found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino, about)
        known = _cache.get(file)
        if known is not None and known[0] == stamp:
            return known[1]
        content = _read_bytes(file, name)
        outcome: Outcome = load_text(content, file=name, known_agents=agents, broken_agents=broken)
    except OSError as exc:
        return (Problem(name, 1, f"the file cannot be read: {exc.strerror}"),)
    except PipelineInvalid as exc:
        outcome = exc.problems
    _cache[file] = (stamp, outcome)
    return outcome


def _forget_others(folder: Path, files: Collection[Path]) -> None:
    gone = [file for file in list(_cache) if file.parent == folder and file not in files]
    for file in gone:
        _cache.pop(file, None)
