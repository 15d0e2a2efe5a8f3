"""From a step run to the order that its execution carries out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction

from djinn.agents.definition import Agent
from djinn.agents.prompts import system_text, task_text
from djinn.core.errors import UserError
from djinn.events.log import NewEvent, append
from djinn.executions.launch import WORKSPACE_MARK
from djinn.pipelines.errors import TemplateInvalid
from djinn.pipelines.flow import outputs_of
from djinn.pipelines.schema import Pipeline, Step, from_snapshot
from djinn.pipelines.template import render
from djinn.runs.catalogue import model_of
from djinn.runs.models import Run, StepRun
from djinn.runs.selectors import attempt_before, base_snapshot_of, history_of, host_of

JSON = Any
NETWORK_SCHEMES = ("https://", "http://", "ssh://", "git@")


def execution_columns(step_run: StepRun) -> dict[str, Any]:
    """The columns of the step run's execution; raises `UserError` when its input cannot be made."""
    run = step_run.run
    pipeline = from_snapshot(run.definition)
    step = pipeline.step(step_run.step)
    names = names_of(run)
    common = {
        "stream": run.stream,
        "tags": {"step_run": step_run.pk, "step": step_run.step, "visit": step_run.visit, "attempt": step_run.attempt},
        "step": step.id,
        "visit": step_run.visit,
        "image": step.image or settings.DEFAULT_IMAGE,
        "network": step.network,
        "resources": {"cpus": step.resources.cpus, "memory_mb": step.resources.memory_mb, "pids": step.resources.pids},
        "timeout_seconds": step.timeout_seconds,
        "workspace": f"{run.stream}",
        "source": _source(pipeline, names),
        "base_snapshot": base_snapshot_of(run),
        "host": host_of(run),
    }
    if step.kind == "run":
        script = _render(step_run, step.run, names)
        return {**common, "order": {"mode": "command", "script": script, "outputs": list(step.outputs)}}
    return {**common, **_agent_columns(step_run, step, names)}


def names_of(run: Run) -> dict[str, JSON]:
    """What templates may name: `inputs`, each input by its own name, and the outputs so far, which go before."""
    inputs = dict(run.inputs)
    return {**inputs, **outputs_of(history_of(run)), "inputs": inputs}


def _agent_columns(step_run: StepRun, step: Step, names: dict[str, JSON]) -> dict[str, Any]:
    agent = Agent(**{**step_run.run.agents[step.agent], "tools": tuple(step_run.run.agents[step.agent]["tools"])})
    before = attempt_before(step_run)
    model = model_of(step, step_run.run.agents[step.agent], override=step_run.run.model)
    prompt = task_text(
        task=_render(step_run, step.input or step.description, {**names, "task_description": step.description}),
        step=step.id,
        outputs=step.outputs,
        went_wrong=f"{before.reason}: {before.message}" if before else "",
    )
    order = {
        "name": agent.name,
        "model": model,
        "system": system_text(agent, workspace=WORKSPACE_MARK),
        "prompt": prompt,
        "tools": list(agent.tools),
        "outputs": list(step.outputs),
        "max_turns": min(step.max_turns, agent.max_turns or step.max_turns),
        "max_output_tokens": step.max_output_tokens or agent.max_output_tokens,
        "temperature": step.temperature if step.temperature is not None else agent.temperature,
    }
    return {
        "model": model,
        "agent": step.agent,
        "order": {"mode": "agent", "agent": order, "outputs": list(step.outputs)},
    }


def _render(step_run: StepRun, text: str, names: dict[str, JSON]) -> str:
    """The template filled in; names that do not exist are empty text and a warning in the run's log."""
    try:
        rendered = render(text, names)
    except TemplateInvalid as exc:
        raise UserError(f"the template of step {step_run.step} cannot be filled in: {exc}") from exc
    if rendered.undefined:
        warning = f"step {step_run.step} uses names that do not exist: {', '.join(rendered.undefined)}"
        with transaction.atomic():
            append(
                step_run.run.stream,
                [NewEvent("notice", {"text": warning, "step_run": step_run.pk, "step": step_run.step})],
            )
    return rendered.text


def _source(pipeline: Pipeline, names: dict[str, JSON]) -> dict[str, str]:
    """Where the workspace comes from. A local path is taken only below the folder of pipelines."""
    try:
        repository = render(pipeline.workspace.repository, names).text.strip()
        ref = render(pipeline.workspace.ref, names).text.strip()
    except TemplateInvalid as exc:
        raise UserError(f"the workspace's template cannot be filled in: {exc}") from exc
    if not repository or repository.startswith(NETWORK_SCHEMES):
        return {"repository": repository, "ref": ref}
    root = settings.PIPELINES_DIRECTORY
    path = (root / repository).resolve()
    if not path.is_relative_to(root) or path == root or not path.exists():
        raise UserError(f"the workspace's repository {repository!r} is no URL and no folder below {_shown(root)}")
    return {"repository": str(path), "ref": ref}


def _shown(path: Path) -> str:
    return f"{path.name}/"
