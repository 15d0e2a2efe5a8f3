"""What people do with runs: each verb is a form with an address of its own."""

from __future__ import annotations

from collections.abc import Callable

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from djinn.accounts.models import User
from djinn.core.errors import UserError
from djinn.dashboard.permissions import operators_only, person
from djinn.dashboard.run_forms import BulkForm, NoteForm, RerunForm, RestartForm
from djinn.dashboard.selectors import find_run
from djinn.dashboard.starting import pipeline_or_answer
from djinn.dashboard.verbs import offers_to
from djinn.runs.bulk import Outcome, cancel_runs, retry_runs
from djinn.runs.continuing import rerun_from, restart_run, retry_run
from djinn.runs.models import Run
from djinn.runs.services import cancel_run
from djinn.runs.steering import inject, pause_run, resume_run

FORMS = ["GET", "HEAD", "POST"]
_BULK = {"cancel": cancel_runs, "retry": retry_runs}


@require_POST
@operators_only
def cancel(request: HttpRequest, pk: int) -> HttpResponse:
    """Cancel the run and show it again."""
    return _done(request, pk, cancel_run)


@require_POST
@operators_only
def pause(request: HttpRequest, pk: int) -> HttpResponse:
    """Let nothing new start."""
    return _done(request, pk, pause_run)


@require_POST
@operators_only
def resume(request: HttpRequest, pk: int) -> HttpResponse:
    """Let things start again."""
    return _done(request, pk, resume_run)


@require_POST
@operators_only
def retry(request: HttpRequest, pk: int) -> HttpResponse:
    """Do again what failed, in a new run, and show that."""
    return _done(request, pk, retry_run)


@require_http_methods(FORMS)
@operators_only
@never_cache
def rerun(request: HttpRequest, pk: int) -> HttpResponse:
    """Begin again at a step that ran, in a new run."""
    run = find_run(person(request), pk)
    form = RerunForm(run, request.POST if request.method == "POST" else None)

    def act(user: User) -> Run:
        step, item = form.place
        return rerun_from(run=run, step=step, item=item, user=user, idempotency_key=form.idempotency_key)

    return _filled(request, "dashboard/rerun.html", run, form, act)


@require_http_methods(FORMS)
@operators_only
@never_cache
def restart(request: HttpRequest, pk: int) -> HttpResponse:
    """Begin from the start with other inputs, in a new run."""
    run = find_run(person(request), pk)
    loaded = pipeline_or_answer(request, run.pipeline)
    if isinstance(loaded, HttpResponse):
        return loaded
    data = request.POST if request.method == "POST" else None
    form = RestartForm(loaded.pipeline, data, present=run.inputs, model=run.model)

    def act(user: User) -> Run:
        key, model = form.idempotency_key, form.chosen_model
        return restart_run(run=run, inputs=form.changed, model=model, user=user, idempotency_key=key)

    return _filled(request, "dashboard/restart.html", run, form, act)


@require_http_methods(FORMS)
@operators_only
@never_cache
def note(request: HttpRequest, pk: int) -> HttpResponse:
    """Add text to the next prompt of a step or an agent."""
    run = find_run(person(request), pk)
    form = NoteForm(run, request.POST if request.method == "POST" else None)
    return _filled(request, "dashboard/note.html", run, form, lambda user: inject(run=run, user=user, **form.note).run)


@require_safe
@login_required
@never_cache
def actions(request: HttpRequest, pk: int) -> HttpResponse:
    """What the person can do with the run now, as a part of its page."""
    run = find_run(person(request), pk)
    return render(request, "dashboard/run/actions.html", {"run": run, "offers": offers_to(person(request), run)})


@require_POST
@operators_only
def bulk(request: HttpRequest) -> HttpResponse:
    """Do the same to the chosen runs, and tell on the list what became of each."""
    form = BulkForm(request.POST)
    if form.is_valid():
        verb = form.cleaned_data["verb"]
        try:
            _tell(request, verb, _BULK[verb](ids=form.cleaned_data["run"], user=person(request)))
        except UserError as exc:
            messages.warning(request, exc.message)
    else:
        messages.warning(request, "Nothing was done: choose the runs first.")
    return redirect(reverse("dashboard:runs") + form.back)


def _done(request: HttpRequest, pk: int, act: Callable[..., Run]) -> HttpResponse:
    run = find_run(person(request), pk)
    try:
        changed = act(run=run, user=person(request))
    except UserError as exc:
        messages.warning(request, exc.message)
        changed = run
    return redirect("dashboard:run", pk=changed.pk)


def _filled(
    request: HttpRequest, template: str, run: Run, form: NoteForm | RerunForm | RestartForm, act: Callable[[User], Run]
) -> HttpResponse:
    """The form, until it could be done what it asks for; then the run that came of it."""
    if form.is_valid():
        try:
            changed = act(person(request))
        except UserError as exc:
            form.add_user_error(exc)
        else:
            return redirect("dashboard:run", pk=changed.pk)
    status = 400 if form.is_bound else 200
    return render(request, template, {"run": run, "form": form}, status=status)


def _tell(request: HttpRequest, verb: str, outcomes: list[Outcome]) -> None:
    done = [outcome for outcome in outcomes if outcome.run is not None]
    if done and verb == "cancel":
        messages.success(request, f"Cancel requested: {', '.join(f'#{one.id}' for one in done)}.")
    elif done:
        messages.success(request, f"Retried: {', '.join(f'#{one.id} as #{one.run}' for one in done)}.")
    for outcome in outcomes:
        if outcome.run is None:
            messages.warning(request, f"#{outcome.id}: {outcome.error}")
