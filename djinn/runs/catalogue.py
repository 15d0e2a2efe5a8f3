"""The pipelines that can be started now, read from the folder, and the agents that a pipeline needs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any

from django.conf import settings

from djinn.agents.definition import Agent
from djinn.agents.registry import find_agent, load_registry
from djinn.core.errors import NotFound, UserError
from djinn.pipelines.loader import Catalogue, Loaded, load_folder
from djinn.pipelines.schema import Pipeline, Step
from djinn.providers.catalogue import KNOWN, check_model, parse_model
from djinn.providers.usage import has_price


def load_catalogue() -> Catalogue:
    """All pipelines of the installation's folder; a file that changed is read again, a broken one hides no other."""
    return load_folder(settings.PIPELINES_DIRECTORY, known_agents=load_registry().agents.keys())


def find_pipeline(pipeline_id: str) -> Loaded:
    """The pipeline of that id; raises `NotFound`, or `UserError` with all problems when only its file is broken."""
    catalogue = load_catalogue()
    if pipeline_id in catalogue.pipelines:
        return catalogue.pipelines[pipeline_id]
    for file, problems in catalogue.problems.items():
        if file.rpartition(".")[0] == pipeline_id:
            details = {f"{problem.line}.{number}": str(problem) for number, problem in enumerate(problems, 1)}
            raise UserError(f"{file} cannot be run: {problems[0]}", details=details)
    known = ", ".join(sorted(catalogue.pipelines)) or "none"
    raise NotFound(f"There is no pipeline {pipeline_id!r}. Known: {known}.")


def agents_of(pipeline: Pipeline) -> dict[str, dict[str, Any]]:
    """The agents of the steps as JSON, by the name that steps use; what the file itself declares goes before."""
    agents = {}
    for step in pipeline.steps:
        if step.kind == "agent" and step.agent not in agents:
            agents[step.agent] = asdict(_agent(pipeline, step.agent))
    return agents


def model_of(step: Step, agent: dict[str, Any], *, override: str = "") -> str:
    """The model that a step's agent uses: the run's, else the step's, else the agent's, else the installation's."""
    return str(override or step.model or agent["model"] or settings.DEFAULT_MODEL)


def check_models(pipeline: Pipeline, agents: dict[str, dict[str, Any]], *, override: str = "") -> None:
    """Raise `UserError` for the first agent step whose model cannot be asked, here or in a pipeline that is used."""
    seen = {pipeline.id}
    for one, its_agents in [(pipeline, agents), *_used(pipeline, seen)]:
        for step, model in _models(one, its_agents, override):
            _check_step(one, step, model)


def model_warnings(pipeline: Pipeline, agents: dict[str, dict[str, Any]], *, override: str = "") -> list[str]:
    """What is odd about the models of a pipeline, and no error."""
    models = dict.fromkeys(model for _, model in _models(pipeline, agents, override))
    return [
        f"The price table does not know {model}: it may be new, or mistyped. Its cost will be shown as unknown."
        for model in models
        if (name := parse_model(model)).provider in KNOWN and not has_price(name.provider, name.model)
    ]


def _models(pipeline: Pipeline, agents: dict[str, dict[str, Any]], override: str) -> Iterator[tuple[Step, str]]:
    for step in pipeline.steps:
        if step.kind == "agent":
            yield step, model_of(step, agents[step.agent], override=override)


def _used(pipeline: Pipeline, seen: set[str]) -> Iterator[tuple[Pipeline, dict[str, dict[str, Any]]]]:
    """The pipelines that this one uses, and those that they use. One that cannot be had fails when its step starts."""
    for step in pipeline.steps:
        if not step.uses or step.uses in seen:
            continue
        seen.add(step.uses)
        with suppress(UserError):
            used = find_pipeline(step.uses).pipeline
            yield used, agents_of(used)
            yield from _used(used, seen)


def _check_step(pipeline: Pipeline, step: Step, model: str) -> None:
    where = f"Step {step.id} of {pipeline.id}"
    if not model:
        where += " has no model"
        raise UserError(f"{where}: name one in the step, in agent {step.agent!r} or in DJINN_MODEL.")
    try:
        check_model(model)
    except UserError as exc:
        raise UserError(f"{where}: {exc.message}", details={"model": exc.message}) from exc
    name = parse_model(model)
    if pipeline.budget and pipeline.budget.usd is not None and not has_price(name.provider, name.model):
        text = f"the price of {model} is unknown, so a budget in dollars cannot be kept: state it in tokens."
        raise UserError(f"{where}: {text}", details={"model": text})


def _agent(pipeline: Pipeline, name: str) -> Agent:
    agent = find_agent(name)
    declared = pipeline.agents.get(name)
    if declared is None:
        return agent
    return replace(agent, model=declared.model or agent.model, tools=declared.tools or agent.tools)
