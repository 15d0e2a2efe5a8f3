"""From a step run to the order that its execution carries out."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from django.conf import settings

from djinn.agents.definition import Agent
from djinn.agents.prompts import system_text, task_text
from djinn.core.errors import UserError
from djinn.executions.launch import WORKSPACE_MARK
from djinn.executions.models import Execution
from djinn.executions.structured import order_of as schema_order_of
from djinn.pipelines.errors import TemplateInvalid
from djinn.pipelines.history import History
from djinn.pipelines.names import names_for
from djinn.pipelines.results import rule_of
from djinn.pipelines.schema import Pipeline, Step
from djinn.pipelines.template import render
from djinn.runs.budgets import seconds_left
from djinn.runs.catalogue import model_of
from djinn.runs.files import place_of
from djinn.runs.holds import lineage
from djinn.runs.models import Note, StepRun
from djinn.runs.notes import notes_for
from djinn.runs.selectors import attempt_before
from djinn.runs.states import StepStatus
from djinn.runs.turn import tags

JSON = Any
NETWORK_SCHEMES = ("https://", "http://", "ssh://", "git@")
LONGEST_RESULT = 4000


@dataclass(frozen=True)
class Order:
    """The columns of a step's execution, the notes that stand in its prompt, and what people should be told of it."""

    step: Step
    columns: dict[str, Any]
    notes: list[Note] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)


def order_of(step_run: StepRun, pipeline: Pipeline, history: History) -> Order:
    """What the step run's execution is to do; raises `UserError` when its input cannot be made."""
    return _Maker(step_run, pipeline, history).order()


def names_of(step_run: StepRun, pipeline: Pipeline, history: History) -> dict[str, JSON]:
    """What the templates of a step run may name."""
    at = history[step_run.number - 1]
    return names_for(pipeline, history, step_run.run.inputs, pipeline.step(step_run.step), at)


class _Maker:
    """Makes one order, and gathers what is worth telling on the way."""

    def __init__(self, step_run: StepRun, pipeline: Pipeline, history: History) -> None:
        self.step_run = step_run
        self.run = step_run.run
        self.pipeline = pipeline
        self.step = pipeline.step(step_run.step)
        self.names = names_of(step_run, pipeline, history)
        self.notices: list[str] = []

    def order(self) -> Order:
        if self.step.kind == "run":
            script = self._render(self.step.run, self.names)
            order = {"mode": "command", "script": script, "outputs": list(self.step.outputs)}
            return Order(self.step, {**self._common(), "order": order}, [], self.notices)
        notes = notes_for(self.step_run, self.step)
        return Order(self.step, {**self._common(), **self._agent_columns(notes)}, notes, self.notices)

    def _common(self) -> dict[str, Any]:
        step, place = self.step, place_of(self.step_run)
        resources = {
            "cpus": step.resources.cpus,
            "memory_mb": step.resources.memory_mb,
            "pids": step.resources.pids,
            "disk_mb": step.resources.disk_mb,
        }
        return {
            "stream": self.run.stream,
            "tags": tags(self.step_run),
            "step": step.id,
            "visit": self.step_run.visit,
            "image": step.image or settings.DEFAULT_IMAGE,
            "network": step.network,
            "resources": resources,
            "timeout_seconds": min(step.timeout_seconds, seconds_left(self.run) or step.timeout_seconds),
            "workspace": place.workspace,
            "lane": place.lane,
            "forked_from": place.forked_from,
            "bases": list(place.bases),
            "host": place.host,
            "source": _source(self.pipeline, self.names),
            "artifacts": list(step.artifacts),
            "budgets": [above.stream for above in lineage(self.run)],
        }

    def _agent_columns(self, notes: list[Note]) -> dict[str, Any]:
        step, kept = self.step, self.run.agents[self.step.agent]
        agent = Agent(**{**kept, "tools": tuple(kept["tools"])})
        model = model_of(step, kept, override=self.run.model)
        names = {"task_description": step.description, **self.names}
        prompt = task_text(
            task=self._render(step.input or step.description, names),
            step=step.id,
            outputs=() if step.output_schema else step.outputs,
            rule=rule_of(step),
            went_wrong=_went_wrong(attempt_before(self.step_run)),
            notes=[note.text for note in notes],
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
            "results": list(step.on_result) if step.must_match else [],
            "temperature": step.temperature if step.temperature is not None else agent.temperature,
        }
        if step.output_schema is not None:
            order |= {"system": agent.persona, "tools": [], "output_schema": schema_order_of(step.output_schema)}
        columns = {"mode": "agent", "agent": order, "outputs": list(step.outputs)}
        return {"model": model, "agent": step.agent, "order": columns}

    def _render(self, text: str, names: dict[str, JSON]) -> str:
        """The template filled in; names that do not exist are empty text, and people are told."""
        try:
            rendered = render(text, names)
        except TemplateInvalid as exc:
            raise UserError(f"the template of step {self.step.id} cannot be filled in: {exc}") from exc
        if rendered.undefined:
            missing = ", ".join(rendered.undefined)
            self.notices.append(f"step {self.step.id} uses names that do not exist: {missing}")
        return rendered.text


def _went_wrong(before: StepRun | None) -> str:
    """What the next attempt is told of the one before: its failure, or the result that asked for another try."""
    if before is None:
        return ""
    if before.status == StepStatus.SUCCEEDED:
        said = "; ".join(f"{name}: {value}" for name, value in before.outputs.items())
        return f"its result asked for another try ({said[:LONGEST_RESULT]})"
    return f"{before.reason}: {_said_inside(before) or before.message}"


def _said_inside(before: StepRun) -> str:
    """The whole of a failure's message, of which the row keeps one line; empty when the reason came from outside."""
    outcome = Execution.objects.filter(pk=before.execution_id or 0).values_list("outcome", flat=True).first()
    error = (outcome or {}).get("error")
    if not isinstance(error, dict) or error.get("reason") != before.reason:
        return ""
    return str(error.get("message") or "")[:LONGEST_RESULT]


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
