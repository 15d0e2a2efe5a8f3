"""The pages of runs."""

from __future__ import annotations

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from djinn.accounts.models import Role
from djinn.core.errors import Conflict
from djinn.dashboard.forms import RunFilterForm
from djinn.dashboard.permissions import operators_only, person
from djinn.dashboard.selectors import find_run, named_texts, results_of, run_list, run_page
from djinn.runs.services import cancel_run
from djinn.runs.states import RunStatus


@require_safe
@login_required
@never_cache
def runs(request: HttpRequest) -> HttpResponse:
    """The list of runs."""
    form = RunFilterForm(request.GET)
    wanted = form.wanted()
    listed = run_list(person(request), wanted=wanted, older_than=form.number("older"), newer_than=form.number("newer"))
    context = {
        "listed": listed,
        "wanted": wanted,
        "statuses": RunStatus.choices,
        "is_operator": person(request).has_role(Role.OPERATOR),
    }
    return render(request, "dashboard/runs.html", context)


@require_safe
@login_required
@never_cache
def run(request: HttpRequest, pk: int) -> HttpResponse:
    """One run: status, inputs, steps, log and results."""
    found = find_run(person(request), pk)
    before = request.GET.get("before", "")
    is_number = before.isascii() and before.isdigit() and len(before) < 19
    page = run_page(found, before=int(before) if is_number else None)
    context = {
        "page": page,
        "view": page.view,
        "steps": page.steps,
        "inputs": named_texts(found.inputs),
        "results": results_of(page.view),
        "may_cancel": person(request).has_role(Role.OPERATOR),
        "now": timezone.now(),
    }
    return render(request, "dashboard/run.html", context)


@require_POST
@operators_only
def cancel(request: HttpRequest, pk: int) -> HttpResponse:
    """Cancel the run and show it again."""
    try:
        cancel_run(run=find_run(person(request), pk), user=person(request))
    except Conflict as exc:
        messages.warning(request, exc.message)
    return redirect("dashboard:run", pk=pk)
