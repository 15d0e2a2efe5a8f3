"""Pipelines that run as a step of another one."""

from __future__ import annotations

from typing import Any

from djinn.core.errors import UserError
from djinn.events.log import NewEvent, append
from djinn.executions.lease import DatabaseClock
from djinn.pipelines.errors import InputsInvalid, TemplateInvalid
from djinn.pipelines.inputs import resolve_inputs
from djinn.pipelines.schema import JSON, Step, to_snapshot
from djinn.pipelines.template import render
from djinn.runs import admission, catalogue
from djinn.runs.dispatch import ring_advance
from djinn.runs.holds import lineage
from djinn.runs.models import Intent, Run, StepRun
from djinn.runs.services import store_run
from djinn.runs.states import RUN_OPEN
from djinn.runs.turn import Turn

DEEPEST = 5


def start_child(step_run: StepRun, step: Step, names: dict[str, Any]) -> Run:
    """A run of the pipeline that the step uses, in the transaction and under the lock of the run around it.

    Raises `UserError` when that pipeline is not there or broken, its inputs do not fit, its concurrency group takes no
    more, or runs are nested too deeply.
    """
    parent = step_run.run
    if parent.depth >= DEEPEST:
        raise UserError(f"step {step.id} uses {step.uses!r}: pipelines may use each other {DEEPEST} levels deep")
    loaded = catalogue.find_pipeline(step.uses)
    agents = catalogue.agents_of(loaded.pipeline)
    catalogue.check_models(loaded.pipeline, agents, override=parent.model)
    inputs = _inputs(step, names, loaded.pipeline)
    group, limit = admission.group_of(loaded.pipeline, inputs)
    child = Run(
        pipeline=loaded.pipeline.id,
        definition=to_snapshot(loaded.pipeline),
        digest=loaded.digest,
        agents=agents,
        inputs=inputs,
        model=parent.model,
        created_by=parent.created_by,
        parent=step_run,
        depth=parent.depth + 1,
        priority=parent.priority,
        group=group,
        group_limit=limit,
    )
    store_run(child, loaded.pipeline, by=f"run {parent.pk}, step {step.id}")
    return child


def cancel_child(step_run: StepRun) -> bool:
    """Have the run of a `uses` step cancelled; whether there is one, open or not."""
    child = Run.objects.filter(parent=step_run).only("pk", "status").first()
    if child is None:
        return False
    if _store_cancel(child, above=step_run.run_id):
        append(child.stream, [NewEvent("cancel_requested", {"by": f"run {step_run.run_id}"})])
    if not child.is_final:
        ring_advance(child.pk)
    return True


def hear_from_above(turn: Turn) -> None:
    """Take a cancel of the run that this one is a part of for its own, also before that run's turn has passed it on."""
    run = turn.run
    if run.parent_id is None or run.cancel_requested_at is not None:
        return
    above = next((one for one in lineage(run) if one.cancel_requested_at is not None), None)
    if above is not None and _store_cancel(run, above=above.pk):
        run.refresh_from_db(fields=["cancel_requested_at"])
        turn.tell("cancel_requested", by=f"run {above.pk}")


def _store_cancel(child: Run, *, above: int) -> bool:
    """Store the cancel with its intent; False when there was one, or the run has ended meanwhile."""
    rows = Run.objects.filter(pk=child.pk, status__in=RUN_OPEN, cancel_requested_at=None)
    if not rows.update(cancel_requested_at=DatabaseClock()):
        return False
    Intent.objects.create(run=child, verb=Intent.Verb.CANCEL, details={"because": f"run {above} ends"})
    return True


def _inputs(step: Step, names: dict[str, Any], pipeline: Any) -> dict[str, JSON]:
    try:
        given = {name: _filled(value, names) for name, value in step.given.items()}
        return dict(resolve_inputs(pipeline, given))
    except TemplateInvalid as exc:
        raise UserError(f"the inputs that step {step.id} gives cannot be filled in: {exc}") from exc
    except InputsInvalid as exc:
        raise UserError(f"step {step.id} uses {step.uses!r} with inputs that do not fit: {exc}") from exc


def _filled(value: JSON, names: dict[str, Any]) -> JSON:
    return render(value, names).text if isinstance(value, str) else value
