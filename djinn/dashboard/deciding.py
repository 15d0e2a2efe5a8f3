"""The pages on which people decide."""

from __future__ import annotations

from django.contrib import messages
from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_POST, require_safe

from djinn.core.errors import UserError
from djinn.dashboard.asking import find_approval, inbox_of, questions_of
from djinn.dashboard.permissions import person
from djinn.dashboard.run_forms import DecisionForm
from djinn.dashboard.selectors import find_run
from djinn.runs.approvals import decide as decide_approval


@require_safe
@login_required
@never_cache
def approvals(request: HttpRequest) -> HttpResponse:
    """What waits for people."""
    return render(request, "dashboard/approvals.html", {"inbox": inbox_of(person(request))})


@require_safe
@login_required
@never_cache
def approval(request: HttpRequest, pk: int) -> HttpResponse:
    """One question, and the form to decide it."""
    return render(request, "dashboard/approval.html", {"asked": find_approval(person(request), pk)})


@require_POST
@login_required
def decide(request: HttpRequest, pk: int) -> HttpResponse:
    """Take the decision and show the run; what was not taken is told there, beside the question as it is now."""
    found = find_approval(person(request), pk)
    if not found.is_theirs:
        raise PermissionDenied(f"This is for {found.by} to decide.")
    form = DecisionForm(request.POST)
    try:
        form.check()
        decided = decide_approval(approval_id=pk, user=person(request), **form.cleaned_data)
    except UserError as exc:
        messages.warning(request, " ".join([exc.message, *exc.details.values()]))
    else:
        is_open = decided.status == "open"
        what = "Your approval counts; others have to decide too" if is_open else decided.get_status_display()
        messages.success(request, f"{what}.")
    return redirect(reverse("dashboard:run", args=[found.row.step_run.run_id]) + "#run-approvals")


@require_safe
@login_required
@never_cache
def run_approvals(request: HttpRequest, pk: int) -> HttpResponse:
    """The questions of a run, as a part of its page."""
    asked, answered = questions_of(find_run(person(request), pk), person(request))
    return render(request, "dashboard/run/approvals.html", {"asked": asked, "answered": answered})
