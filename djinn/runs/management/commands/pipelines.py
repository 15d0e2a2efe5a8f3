from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from djinn.agents.registry import load_registry
from djinn.documents.problems import Problem
from djinn.pipelines.errors import InputsInvalid, PipelineInvalid
from djinn.pipelines.inputs import resolve_inputs
from djinn.pipelines.json_schema import json_schema
from djinn.pipelines.loaded import Catalogue, Loaded
from djinn.pipelines.loader import load_file, load_folder
from djinn.pipelines.schema import JSON, Pipeline
from djinn.pipelines.simulate import Coverage, explore
from djinn.pipelines.simulation.report import missing, story


class Command(BaseCommand):
    help = "Checks pipeline files, walks all their branches with stub agents, or prints the JSON Schema of such files."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True)
        check = actions.add_parser("check", help="everything that is wrong with files; exit code 1 when something is")
        _add_places(check)
        check.add_argument("--strict", action="store_true", help="exit with 1 on warnings, too")
        simulate = actions.add_parser("simulate", help="walk every branch; exit code 1 when one cannot be taken")
        _add_places(simulate)
        simulate.add_argument("--inputs", default="{}", metavar="JSON", help="inputs that are fixed, as a JSON object")
        simulate.add_argument("--allow-uncovered", action="store_true", help="exit with 0 all the same")
        simulate.add_argument("--verbose", action="store_true", help="show the plays")
        actions.add_parser("schema", help="print the JSON Schema, for editors")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["action"] == "schema":
            self.stdout.write(json.dumps(json_schema(), indent=2))
        elif options["action"] == "check":
            self._check(options)
        else:
            self._simulate(options)

    def _check(self, options: Mapping[str, Any]) -> None:
        files = _Files(options["paths"], options["agents"])
        problems = [*files.agent_problems, *files.problems]
        for problem in problems:
            self.stdout.write(_told(problem))
        warnings = sum(problem.severity == "warning" for problem in problems)
        errors = len(problems) - warnings
        self.stdout.write(f"{_count(files.count, 'file')}: {_count(errors, 'error')}, {_count(warnings, 'warning')}")
        if errors or (warnings and options["strict"]):
            raise SystemExit(1)

    def _simulate(self, options: Mapping[str, Any]) -> None:
        files = _Files(options["paths"], options["agents"])
        errors = [problem for problem in files.problems if problem.severity == "error"]
        for problem in errors:
            self.stdout.write(_told(problem))
        is_whole = True
        pipelines = [loaded.pipeline for loaded in files.loaded]
        for loaded, inputs in zip(files.loaded, _fixed(pipelines, _inputs(options["inputs"])), strict=True):
            coverage = explore(loaded.pipeline, files.known_to(loaded), inputs=inputs)
            self._show(loaded, coverage, is_verbose=options["verbose"])
            is_whole = is_whole and not coverage.uncovered
        if errors or not (is_whole or options["allow_uncovered"]):
            raise SystemExit(1)

    def _show(self, loaded: Loaded, coverage: Coverage, *, is_verbose: bool) -> None:
        for number, walk in enumerate(coverage.plays if is_verbose else (), 1):
            for line in story(walk):
                self.stdout.write(f"{loaded.pipeline.id} {number}: {line}")
        covered = f"{len(coverage.covered)} of {_count(len(coverage.branches), 'branch', 'branches')}"
        plays = _count(len(coverage.plays), "play")
        self.stdout.write(f"{loaded.path}: {_percent(coverage)} % covered, {covered}, {plays}")
        for line in missing(coverage, loaded.path, Path(loaded.path).read_bytes()):
            self.stdout.write(line)


class _Files:
    """The pipelines in files and folders, with everything that is wrong with them. A file's `uses` are looked up among
    its neighbours."""

    def __init__(self, paths: list[str], agents: str | None) -> None:
        if agents is not None and not Path(agents).is_dir():
            raise CommandError(f"--agents {agents}: there is no such folder.")
        registry = load_registry(Path(agents) if agents is not None else None)
        self._agents, self._broken = registry.agents.keys(), registry.broken
        self.agent_problems = [
            _of_agents(problem, agents)
            for found in (registry.problems, registry.warnings)
            for name in sorted(found)
            for problem in found[name]
        ]
        self.problems: list[Problem] = []
        self.loaded: list[Loaded] = []
        self.known: dict[Path, dict[str, Pipeline]] = {}
        self.count = 0
        for path in map(Path, paths):
            self._add(path, only="") if path.is_dir() else self._add(path.parent, only=path.name)

    def known_to(self, loaded: Loaded) -> Mapping[str, Pipeline]:
        """The pipelines that this one may use."""
        return self.known[Path(loaded.path).parent]

    def _add(self, folder: Path, *, only: str) -> None:
        catalogue = self._folder(folder) if folder.is_dir() else Catalogue({}, {})
        self.known[folder] = {name: loaded.pipeline for name, loaded in catalogue.pipelines.items()}
        found: dict[str, Loaded | tuple[Problem, ...]] = dict(catalogue.problems)
        found.update({Path(loaded.path).name: loaded for loaded in catalogue.pipelines.values()})
        if only and only not in found:
            found[only] = self._by_itself(folder / only)
        chosen = [only] if only else sorted(found)
        if not chosen:
            self.problems.append(Problem(str(folder), 1, "there is no *.yaml or *.yml in this folder"))
        for name in chosen:
            self._keep(folder / name if name != folder.name else folder, found[name])

    def _folder(self, folder: Path) -> Catalogue:
        return load_folder(folder, known_agents=self._agents, broken_agents=self._broken)

    def _by_itself(self, path: Path) -> Loaded | tuple[Problem, ...]:
        try:
            return load_file(path, known_agents=self._agents, broken_agents=self._broken)
        except PipelineInvalid as exc:
            return exc.problems

    def _keep(self, path: Path, outcome: Loaded | tuple[Problem, ...]) -> None:
        self.count += 1
        if isinstance(outcome, Loaded):
            self.loaded.append(replace(outcome, path=str(path)))
        problems = outcome.warnings if isinstance(outcome, Loaded) else outcome
        self.problems += [replace(problem, file=str(path)) for problem in problems]


def _add_places(parser: ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", metavar="PATH", help="a file, or a folder of them")
    parser.add_argument("--agents", metavar="DIR", help="the folder of agents; the installation's unless given")


def _of_agents(problem: Problem, folder: str | None) -> Problem:
    """The problem with the folder of agents as it was given."""
    if folder is None:
        return problem
    return replace(problem, file=str(Path(folder).parent / problem.file) if Path(folder).name else problem.file)


def _told(problem: Problem) -> str:
    is_warning = problem.severity == "warning"
    return str(replace(problem, message=f"warning: {problem.message}") if is_warning else problem)


def _inputs(text: str) -> dict[str, JSON]:
    try:
        found = json.loads(text)
    except ValueError as exc:
        raise CommandError(f"--inputs is no JSON: {exc}") from exc
    if not isinstance(found, dict):
        raise CommandError('--inputs: write a JSON object, such as {"topic": "cats"}.')
    return found


def _fixed(pipelines: list[Pipeline], given: Mapping[str, JSON]) -> list[dict[str, JSON]]:
    """What each pipeline takes of the inputs; raises `CommandError` for one that none takes, or that does not fit."""
    unknown = given.keys() - {one.name for pipeline in pipelines for one in pipeline.inputs}
    if pipelines and unknown:
        raise CommandError(f"--inputs: no pipeline has the input {sorted(unknown)[0]!r}.")
    found = []
    for pipeline in pipelines:
        declared = tuple(one for one in pipeline.inputs if one.name in given)
        try:
            own = {one.name: given[one.name] for one in declared}
            found.append(resolve_inputs(replace(pipeline, inputs=declared), own))
        except InputsInvalid as exc:
            raise CommandError(f"--inputs for {pipeline.id}: {exc}") from exc
    return found


def _percent(coverage: Coverage) -> str:
    """Whole percents; 100 only when nothing is left."""
    return "100" if not coverage.uncovered else str(min(99, int(coverage.percent)))


def _count(number: int, word: str, words: str = "") -> str:
    return f"{number} {word if number == 1 else words or f'{word}s'}"
