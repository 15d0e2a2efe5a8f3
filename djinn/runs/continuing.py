"""Going on from a run: final is final, so each of these makes a new one, which `continues` the old one.

The results that stand are copied as rows with `reused_from`; nothing of them is computed again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from django.conf import settings
from django.db.models import DurationField, Value

from djinn.accounts.models import User
from djinn.core.errors import Conflict
from djinn.events.log import NewEvent, append
from djinn.executions.lease import DatabaseClock
from djinn.pipelines.flow import Finish, Past, next_steps
from djinn.pipelines.schema import Pipeline
from djinn.runs import catalogue
from djinn.runs.admission import lock_starts
from djinn.runs.definitions import definition_of
from djinn.runs.histories import past_of
from djinn.runs.idempotency import Request, earlier_run, request_of, stored_once
from djinn.runs.models import Intent, Run, StepRun
from djinn.runs.notes import copy_notes
from djinn.runs.people import name_of
from djinn.runs.reuse import kept_on_rerun, kept_on_retry
from djinn.runs.services import new_run, store_cancel, store_first, store_run
from djinn.runs.states import RUN_FINAL, RUN_OPEN, RunStatus

JSON = Any
Verb = Intent.Verb
COPIED = (
    "step", "item", "item_value", "visit", "attempt", "because", "status", "reason", "message", "outputs", "summary",
    "lane", "snapshot", "queued_at", "started_at", "ended_at",
)  # fmt: skip


def retry_run(*, run: Run, user: User | None = None, idempotency_key: str | None = None) -> Run:
    """A new run that does what failed, or was cancelled, again, and goes on from there.

    Raises `Conflict` for a run that is open, succeeded, is retried already, or whose end no other try would change.
    """

    def choose(old: Run, pipeline: Pipeline, history: list[Past]) -> list[int]:
        if not old.is_final:
            raise Conflict(f"Run {old.pk} has not ended: {old.get_status_display().lower()}.")
        if old.status == RunStatus.SUCCEEDED:
            raise Conflict(f"Run {old.pk} has succeeded: run it again from one of its steps.")
        if newer := old.continuations.filter(status__in=RUN_OPEN).first():
            raise Conflict(f"Run {newer.pk} goes on from run {old.pk} already.")
        kept = kept_on_retry(pipeline, history, old.reason)
        for decision in next_steps(pipeline, _renumbered(history, kept), inputs=old.inputs):
            if isinstance(decision, Finish):
                text = f"Another try would end at once: {decision.message or decision.status}."
                raise Conflict(f"{text} Run it again from one of its steps, or restart it.")
        return kept

    return _go_on(run, choose, Verb.RETRY, user, idempotency_key, {})


def rerun_from(
    *,
    run: Run,
    step: str,
    item: str = "",
    visit: int | None = None,
    user: User | None = None,
    idempotency_key: str | None = None,
) -> Run:
    """A new run that begins at a step that ran: at its last visit unless `item` or `visit` say otherwise.

    An open run is cancelled by it. Raises `UserError` for an unknown step, `Conflict` for one that never ran.
    """

    def choose(old: Run, pipeline: Pipeline, history: list[Past]) -> list[int]:
        return kept_on_rerun(pipeline, history, step, item, visit)

    where = {"from_step": step, "from_item": item, "from_visit": visit}
    return _go_on(run, choose, Verb.RERUN, user, idempotency_key, {name: where[name] for name in where if where[name]})


def restart_run(
    *,
    run: Run,
    inputs: Mapping[str, JSON] | None = None,
    model: str | None = None,
    user: User | None = None,
    idempotency_key: str | None = None,
) -> Run:
    """A new run from the beginning, of the pipeline and the agents as they are now, with the old inputs and these.

    `model` None is the old run's; empty is what each agent or step names.
    Old values of inputs that the pipeline has no longer are left out. Raises `Conflict` for a run that is open, and
    what `start_run` raises.
    """
    changed = dict(inputs or {})
    request = request_of(user, idempotency_key, verb=str(Verb.RESTART), run=run.pk, inputs=changed, model=model)
    if earlier := earlier_run(request):
        return earlier
    _refuse_child(run)
    if not run.is_final:
        raise Conflict(f"Run {run.pk} has not ended: {run.get_status_display().lower()}.")
    declared = {given.name for given in catalogue.find_pipeline(run.pipeline).pipeline.inputs}
    kept = {name: value for name, value in run.inputs.items() if name in declared}
    chosen = run.model if model is None else model
    new, pipeline = new_run(pipeline_id=run.pipeline, inputs={**kept, **changed}, model=chosen, request=request)
    new.continues = run
    details = {"inputs": changed} if model is None else {"inputs": changed, "model": model}

    def store() -> Run:
        store_first(new, pipeline, verb=str(Verb.RESTART))
        _tell_old(run, new, Verb.RESTART, user, details)
        return new

    return stored_once(request, store)


def _go_on(
    run: Run,
    choose: Callable[[Run, Pipeline, list[Past]], list[int]],
    verb: Intent.Verb,
    user: User | None,
    key: str | None,
    details: dict[str, JSON],
) -> Run:
    """The new run with the results that `choose` keeps, its event, and the intent on the old one: one transaction."""
    request = request_of(user, key, verb=str(verb), run=run.pk, **details)
    if earlier := earlier_run(request):
        return earlier
    _refuse_child(run)
    return stored_once(request, lambda: _store(run, choose, verb, request, details))


def _store(
    run: Run,
    choose: Callable[[Run, Pipeline, list[Past]], list[int]],
    verb: Intent.Verb,
    request: Request,
    details: dict[str, JSON],
) -> Run:
    lock_starts(run.group)
    old = Run.objects.select_for_update().get(pk=run.pk)
    pipeline = definition_of(old)
    rows = list(old.step_runs.select_related("reused_from").order_by("number"))
    kept = choose(old, pipeline, [past_of(row) for row in rows])
    kept_rows = [rows[number - 1] for number in kept]
    _refuse_removed(old, kept_rows)
    catalogue.check_models(pipeline, old.agents, override=old.model)
    if not old.is_final:
        store_cancel(old, request.user, because="it is run again from one of its steps")
    new = store_run(_successor(old, request), pipeline, verb=str(verb), reused=len(kept), **details)
    copies = _copied(new, kept_rows)
    copy_notes(old, new, copies)
    _tell_old(old, new, verb, request.user, details)
    return new


def _tell_old(old: Run, new: Run, verb: Intent.Verb, user: User | None, details: dict[str, JSON]) -> None:
    """The intent and its event on the run that was asked to go on."""
    details = {"run": new.pk, **details}
    Intent.objects.create(run=old, verb=verb, by=user, details=details)
    append(old.stream, [NewEvent(f"{verb}_requested", {"by": name_of(user), **details})])


def _successor(old: Run, request: Request) -> Run:
    """A run of the very same definition, agents, inputs and place, that goes on from the old one."""
    return Run(
        pipeline=old.pipeline,
        definition=old.definition,
        digest=old.digest,
        agents=old.agents,
        inputs=old.inputs,
        model=old.model,
        priority=old.priority,
        group=old.group,
        group_limit=old.group_limit,
        schedule=old.schedule,
        host=old.host,
        continues=old,
        **request.columns,
    )


def _copied(new: Run, rows: list[StepRun]) -> dict[int, StepRun]:
    """The rows as the new run's own first ones; by the key of the row that each was copied from."""
    numbers = {row.number: number for number, row in enumerate(rows, 1)}
    copies = [
        StepRun(
            run=new,
            number=numbers[row.number],
            bases=[numbers[base] for base in row.bases],
            reused_from_id=row.reused_from_id or row.pk,
            **{name: getattr(row, name) for name in COPIED},
        )
        for row in rows
    ]
    StepRun.objects.bulk_create(copies)
    return {row.pk: copy for row, copy in zip(rows, copies, strict=True)}


def _renumbered(history: list[Past], kept: list[int]) -> list[Past]:
    numbers = {number: position for position, number in enumerate(kept, 1)}
    past = [history[number - 1] for number in kept]
    return [replace(one, bases=tuple(numbers[base] for base in one.bases)) for one in past]


def _refuse_child(run: Run) -> None:
    if run.parent is not None:
        raise Conflict(f"Run {run.pk} is a part of run {run.parent.run_id}: only that one can be run again.")


def _refuse_removed(old: Run, rows: list[StepRun]) -> None:
    """Raise `Conflict` when the files that the new run would begin with were removed, or are about to be."""
    places = [row.reused_from.run_id if row.reused_from is not None else old.pk for row in rows]
    kept = Value(timedelta(seconds=settings.KEEP_WORKSPACE_SECONDS), output_field=DurationField())
    gone = Run.objects.filter(pk=max(places, default=0), status__in=RUN_FINAL, ended_at__lt=DatabaseClock() - kept)
    if gone.exists():
        raise Conflict(f"The files of run {max(places)} were removed, since it ended long ago: restart it instead.")
