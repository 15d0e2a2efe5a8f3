"""What people and programs do to runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from django.conf import settings
from django.db import IntegrityError, transaction

from djinn.accounts.models import User
from djinn.core.errors import Conflict, UserError
from djinn.core.faults import fault
from djinn.events.log import NewEvent, append, open_stream
from djinn.executions.lease import DatabaseClock
from djinn.pipelines.errors import InputsInvalid
from djinn.pipelines.inputs import resolve_inputs
from djinn.pipelines.schema import to_snapshot
from djinn.runs import catalogue
from djinn.runs.dispatch import ring_advance
from djinn.runs.models import Run
from djinn.runs.states import RUN_OPEN

JSON = Any
MOST_INPUT_BYTES = 1024 * 1024


def start_run(
    *,
    pipeline_id: str,
    inputs: Mapping[str, JSON],
    user: User | None = None,
    model: str = "",
    idempotency_key: str | None = None,
) -> Run:
    """A new run, QUEUED, with the pipeline, the agents and the inputs as they are now.

    With an `idempotency_key` that this person used before, the run that it started then. Raises `NotFound` for an
    unknown pipeline, `UserError` for a broken one, wrong inputs (`details` by input) or a model that nobody serves.
    """
    if idempotency_key and (earlier := _started_before(user, idempotency_key, pipeline_id)):
        return earlier
    loaded = catalogue.find_pipeline(pipeline_id)
    agents = catalogue.agents_of(loaded.pipeline)
    catalogue.check_models(loaded.pipeline, agents, override=model)
    run = Run(
        pipeline=loaded.pipeline.id,
        definition=to_snapshot(loaded.pipeline),
        digest=loaded.digest,
        agents=agents,
        inputs=_inputs(loaded.pipeline, inputs),
        model=model,
        created_by=user,
        idempotency_key=idempotency_key or None,
    )
    try:
        with transaction.atomic():
            run.save(force_insert=True)
            open_stream(run.stream)
            append(run.stream, [NewEvent("run_queued", {"pipeline": run.pipeline, "by": _name(user)})])
            ring_advance(run.pk)
            fault("start_run.before_commit")
    except IntegrityError as exc:
        if idempotency_key and (earlier := _started_before(user, idempotency_key, pipeline_id)):
            return earlier
        raise Conflict("The run could not be stored; try again.") from exc
    fault("start_run.after_commit")
    return run


def cancel_run(*, run: Run, user: User | None = None) -> Run:
    """Store that the run shall be cancelled; again is no error. Raises `Conflict` when it has ended already."""
    with transaction.atomic():
        locked = _store_cancel(run, user)
    fault("cancel.after_commit")
    return locked


def _store_cancel(run: Run, user: User | None) -> Run:
    locked = Run.objects.select_for_update().get(pk=run.pk)
    if locked.is_final:
        raise Conflict(f"Run {run.pk} has ended already: {locked.get_status_display().lower()}.")
    if locked.cancel_requested_at is None:
        Run.objects.filter(pk=run.pk, status__in=RUN_OPEN).update(
            cancel_requested_at=DatabaseClock(), cancelled_by=user
        )
        append(run.stream, [NewEvent("cancel_requested", {"by": _name(user)})])
        locked.refresh_from_db()
    ring_advance(run.pk)
    fault("cancel.before_commit")
    return locked


def _inputs(pipeline: Any, given: Mapping[str, JSON]) -> dict[str, JSON]:
    if len(json.dumps(given, default=str)) > MOST_INPUT_BYTES:
        raise UserError(f"The inputs are larger than {MOST_INPUT_BYTES} bytes.")
    try:
        return dict(resolve_inputs(pipeline, given))
    except InputsInvalid as exc:
        raise UserError("The inputs do not fit the pipeline.", details=exc.problems) from exc


def _started_before(user: User | None, key: str, pipeline_id: str) -> Run | None:
    run = Run.objects.filter(created_by=user, idempotency_key=key).first()
    if run is not None and run.pipeline != pipeline_id:
        raise Conflict(f"This idempotency key started run {run.pk} of another pipeline.")
    return run


def _name(user: User | None) -> str:
    return user.get_username() if user else f"command line of {settings.HOST_NAME}"
