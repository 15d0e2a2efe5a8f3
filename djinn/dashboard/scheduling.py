"""The pages of schedules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.db.models import OuterRef, Subquery
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from djinn.accounts.models import Role, User
from djinn.core.errors import UserError
from djinn.dashboard.permissions import operators_only, person
from djinn.dashboard.schedule_form import ScheduleForm
from djinn.dashboard.starting import pipeline_or_answer
from djinn.pipelines.loader import Loaded
from djinn.runs.catalogue import load_catalogue
from djinn.runs.models import Run, Schedule
from djinn.runs.schedules import (
    Wanted,
    change_schedule,
    create_schedule,
    delete_schedule,
    enable_schedule,
    next_due,
    present_of,
    schedules_seen_by,
    start_now,
    upcoming,
)
from djinn.runs.selectors import UNLISTED

FORMS = ["GET", "HEAD", "POST"]


@dataclass(frozen=True)
class ScheduleLine:
    """A schedule in the list."""

    row: Schedule
    next_due: datetime | None
    last_run: Run | None


@require_safe
@login_required
@never_cache
def schedules(request: HttpRequest) -> HttpResponse:
    """The schedules that the person may see."""
    context = {"lines": _lines(person(request)), "is_operator": person(request).has_role(Role.OPERATOR)}
    return render(request, "dashboard/schedules.html", context)


@require_safe
@operators_only
@never_cache
def choose(request: HttpRequest) -> HttpResponse:
    """The pipelines that a schedule can be made for."""
    return render(request, "dashboard/choose.html", {"catalogue": load_catalogue(), "is_for_schedule": True})


@require_http_methods(FORMS)
@operators_only
@never_cache
def create(request: HttpRequest, pipeline: str) -> HttpResponse:
    """The form of a new schedule of the pipeline."""
    loaded = pipeline_or_answer(request, pipeline)
    if isinstance(loaded, HttpResponse):
        return loaded
    form = ScheduleForm(loaded.pipeline, request.POST if request.method == "POST" else None)
    return _filled(request, loaded, form, lambda wanted: create_schedule(user=person(request), wanted=wanted))


@require_http_methods(FORMS)
@operators_only
@never_cache
def change(request: HttpRequest, pk: int) -> HttpResponse:
    """The form of a schedule that there is."""
    schedule = _find(request, pk)
    loaded = pipeline_or_answer(request, schedule.pipeline)
    if isinstance(loaded, HttpResponse):
        return loaded
    present = present_of(schedule)
    data = request.POST if request.method == "POST" else None
    form = ScheduleForm(loaded.pipeline, data, present=present.inputs, initial=asdict(present))
    context = {"schedule": schedule, "upcoming": upcoming(schedule.cron, schedule.timezone)}
    return _filled(
        request,
        loaded,
        form,
        lambda wanted: change_schedule(schedule=schedule, wanted=wanted, user=person(request)),
        **context,
    )


@require_POST
@operators_only
def enable(request: HttpRequest, pk: int) -> HttpResponse:
    """Let the schedule start runs, or not: `to` is `on` or `off`."""
    is_enabled = request.POST.get("to") == "on"
    schedule = enable_schedule(schedule=_find(request, pk), is_enabled=is_enabled, user=person(request))
    messages.success(request, f"{schedule.name} is {'enabled' if schedule.is_enabled else 'disabled'}.")
    return redirect("dashboard:schedules")


@require_POST
@operators_only
def delete(request: HttpRequest, pk: int) -> HttpResponse:
    """Delete the schedule; its runs stay."""
    schedule = _find(request, pk)
    delete_schedule(schedule=schedule)
    messages.success(request, f"{schedule.name} was deleted. Its runs stay.")
    return redirect("dashboard:schedules")


@require_POST
@operators_only
def start(request: HttpRequest, pk: int) -> HttpResponse:
    """Start a run of it now, and show that."""
    try:
        return redirect("dashboard:run", pk=start_now(schedule=_find(request, pk), user=person(request)).pk)
    except UserError as exc:
        messages.warning(request, " ".join([exc.message, *exc.details.values()]))
        return redirect("dashboard:schedules")


def _find(request: HttpRequest, pk: int) -> Schedule:
    return get_object_or_404(schedules_seen_by(person(request)), pk=pk)


def _lines(user: User) -> list[ScheduleLine]:
    rows = list(schedules_seen_by(user))
    newest = Run.objects.filter(schedule=OuterRef("pk")).order_by("-pk").values("pk")[:1]
    numbers = Schedule.objects.filter(pk__in=[row.pk for row in rows]).annotate(last=Subquery(newest)).values("last")
    last = {run.schedule_id: run for run in Run.objects.filter(pk__in=numbers).defer(*UNLISTED, "inputs")}
    return [ScheduleLine(row, next_due(row), last.get(row.pk)) for row in rows]


def _filled(
    request: HttpRequest, loaded: Loaded, form: ScheduleForm, act: Callable[[Wanted], Schedule], **context: Any
) -> HttpResponse:
    """The form, until the schedule could be stored; then the list."""
    if form.is_valid():
        try:
            schedule = act(form.schedule)
        except UserError as exc:
            form.add_user_error(exc)
        else:
            messages.success(request, f"{schedule.name} is stored.")
            return redirect("dashboard:schedules")
    status = 400 if form.is_bound else 200
    return render(request, "dashboard/schedule.html", {"loaded": loaded, "form": form, **context}, status=status)
