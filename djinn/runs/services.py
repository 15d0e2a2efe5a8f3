"""What people and programs do to runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from django.db import transaction

from djinn.accounts.models import User
from djinn.core.errors import Conflict, UserError
from djinn.core.faults import fault
from djinn.events.log import NewEvent, append, open_stream
from djinn.executions.lease import DatabaseClock
from djinn.pipelines.errors import InputsInvalid
from djinn.pipelines.inputs import resolve_inputs
from djinn.pipelines.schema import Pipeline, to_snapshot
from djinn.runs import catalogue
from djinn.runs.admission import group_of, on_start
from djinn.runs.budgets import open_run_budget
from djinn.runs.dispatch import ring_advance
from djinn.runs.idempotency import Request, earlier_run, request_of, stored_once
from djinn.runs.models import Intent, Run, Schedule
from djinn.runs.people import name_of
from djinn.runs.states import RUN_OPEN

JSON = Any
MOST_INPUT_BYTES = 1024 * 1024
HIGHEST_PRIORITY = 100
ITSELF = "Djinn"
"""Who wants what nobody asked for."""


def start_run(
    *,
    pipeline_id: str,
    inputs: Mapping[str, JSON],
    user: User | None = None,
    model: str = "",
    idempotency_key: str | None = None,
    key_space: str = "",
    priority: int | None = None,
    schedule: Schedule | None = None,
) -> Run:
    """A new run, QUEUED, with the pipeline, the agents and the inputs as they are now.

    With an `idempotency_key` that this person used before in that space, the run that it started then. `priority` goes
    before the pipeline's own. Raises `NotFound` for an unknown pipeline, `UserError` for a broken one, wrong inputs
    (`details` by input) or a model that nobody serves, `Conflict` when its concurrency group is full and takes no more,
    or the key was used for another request.
    """
    asked = {"pipeline": pipeline_id, "inputs": dict(inputs), "model": model, "priority": priority}
    request = request_of(user, idempotency_key, space=key_space, **asked)
    if earlier := earlier_run(request):
        return earlier
    run, pipeline = new_run(pipeline_id=pipeline_id, inputs=inputs, model=model, priority=priority, request=request)
    run.schedule = schedule
    stored = stored_once(request, lambda: store_first(run, pipeline))
    fault("start_run.after_commit")
    return stored


def new_run(
    *, pipeline_id: str, inputs: Mapping[str, JSON], model: str, request: Request, priority: int | None = None
) -> tuple[Run, Pipeline]:
    """A run that is not stored yet, and its pipeline as it is now; raises what `start_run` raises."""
    loaded = catalogue.find_pipeline(pipeline_id)
    agents = catalogue.agents_of(loaded.pipeline)
    catalogue.check_models(loaded.pipeline, agents, override=model)
    values = _inputs(loaded.pipeline, inputs)
    group, limit = group_of(loaded.pipeline, values)
    run = Run(
        pipeline=loaded.pipeline.id,
        definition=to_snapshot(loaded.pipeline),
        digest=loaded.digest,
        agents=agents,
        inputs=values,
        model=model,
        priority=_priority(loaded.pipeline.priority if priority is None else priority),
        group=group,
        group_limit=limit,
        **request.columns,
    )
    return run, loaded.pipeline


def group_of_start(*, pipeline_id: str, inputs: Mapping[str, JSON]) -> str:
    """The concurrency group of which such a run would be; raises what `start_run` raises."""
    pipeline = catalogue.find_pipeline(pipeline_id).pipeline
    return group_of(pipeline, _inputs(pipeline, inputs))[0]


def store_run(run: Run, pipeline: Pipeline, **told: JSON) -> Run:
    """The new run, stored with its stream and first event, by the policy of its group, in the caller's transaction.

    Raises `Conflict` when the group takes no more, and `IntegrityError` when its idempotency key was used meanwhile.
    """
    run.save(force_insert=True)
    open_stream(run.stream)
    about: dict[str, JSON] = {"pipeline": run.pipeline, "by": name_of(run.created_by)}
    if run.continues_id is not None:
        about |= {"continues": run.continues_id}
    append(run.stream, [NewEvent("run_queued", {**about, **told})])
    _keep_to_policy(run, pipeline)
    open_run_budget(run, pipeline)
    ring_advance(run.pk)
    fault("start_run.before_commit")
    return run


def store_first(run: Run, pipeline: Pipeline, **told: JSON) -> Run:
    """As `store_run`, for a run that begins at the beginning; what is odd about its models is told in its log."""
    store_run(run, pipeline, **told)
    warnings = catalogue.model_warnings(pipeline, run.agents, override=run.model)
    if warnings:
        append(run.stream, [NewEvent("notice", {"text": text}) for text in warnings])
    return run


def cancel_run(*, run: Run, user: User | None = None) -> Run:
    """Store that the run shall be cancelled; again is no error. Raises `Conflict` when it has ended already."""
    with transaction.atomic():
        locked = store_cancel(run, user)
    fault("cancel.after_commit")
    return locked


def _keep_to_policy(run: Run, pipeline: Pipeline) -> None:
    """Apply what the concurrency group's policy says about one more run."""
    for older in on_start(run, pipeline.concurrency.policy if pipeline.concurrency else "queue"):
        cancel_superseded(run=older, because=f"superseded by run {run.pk} of the same concurrency group")


def cancel_superseded(*, run: Run, because: str) -> None:
    """Cancel in nobody's name, in the caller's transaction; nothing when the run has ended meanwhile."""
    with suppress(Conflict):
        store_cancel(run, None, because=because)


def store_cancel(run: Run, user: User | None, *, because: str = "") -> Run:
    """The run, locked, with the wish to cancel it stored, in the caller's transaction; again is no error.

    Raises `Conflict` when it has ended.
    """
    locked = Run.objects.select_for_update().get(pk=run.pk)
    if locked.is_final:
        raise Conflict(f"Run {run.pk} has ended already: {locked.get_status_display().lower()}.")
    if locked.cancel_requested_at is None:
        Run.objects.filter(pk=run.pk, status__in=RUN_OPEN).update(
            cancel_requested_at=DatabaseClock(), cancelled_by=user
        )
        details = {"because": because} if because else {}
        Intent.objects.create(run=locked, verb=Intent.Verb.CANCEL, by=user, details=details)
        by = ITSELF if because and user is None else name_of(user)
        append(run.stream, [NewEvent("cancel_requested", {"by": by, **details})])
        locked.refresh_from_db()
    ring_advance(run.pk)
    fault("cancel.before_commit")
    return locked


def _inputs(pipeline: Pipeline, given: Mapping[str, JSON]) -> dict[str, JSON]:
    if len(json.dumps(given, default=str)) > MOST_INPUT_BYTES:
        raise UserError(f"The inputs are larger than {MOST_INPUT_BYTES} bytes.")
    try:
        return dict(resolve_inputs(pipeline, given))
    except InputsInvalid as exc:
        raise UserError("The inputs do not fit the pipeline.", details=exc.problems) from exc


def _priority(priority: int) -> int:
    if abs(priority) > HIGHEST_PRIORITY:
        wrong = f"from -{HIGHEST_PRIORITY} to {HIGHEST_PRIORITY}"
        raise UserError(f"The priority must be {wrong}, not {priority}.", details={"priority": wrong})
    return priority
