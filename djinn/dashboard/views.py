"""The pages of runs."""

from __future__ import annotations

from django.contrib.auth.decorators import login_required
from django.http import FileResponse, Http404, HttpRequest, HttpResponse
from django.shortcuts import render
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from djinn.accounts.models import Role
from djinn.core.errors import NotFound
from djinn.core.liveness import problems, worker_views
from djinn.dashboard.asking import questions_of
from djinn.dashboard.forms import ItemsForm, RunFilterForm
from djinn.dashboard.parts import failing_calls, parts_of, relations_of
from djinn.dashboard.permissions import person, viewers_only
from djinn.dashboard.selectors import find_run, named_texts, run_list, run_page
from djinn.dashboard.steps import item_page
from djinn.dashboard.verbs import offers_to
from djinn.runs.artifacts import open_artifact
from djinn.runs.selectors import run_view
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
        "is_viewer": person(request).has_role(Role.VIEWER),
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
    asked, answered = questions_of(found, person(request))
    context = {
        "page": page,
        "view": page.view,
        "steps": page.steps,
        "parts": parts_of(page.view),
        "calls": failing_calls(found.pk),
        "relations": relations_of(found),
        "inputs": named_texts(found.inputs),
        "run": found,
        "offers": offers_to(person(request), found),
        "asked": asked,
        "answered": answered,
        "now": timezone.now(),
    }
    return render(request, "dashboard/run.html", context)


@require_safe
@login_required
@never_cache
def items(request: HttpRequest, pk: int) -> HttpResponse:
    """All tries of one step of a run, in pages."""
    found = find_run(person(request), pk)
    step, number = ItemsForm(request.GET).wanted()
    listed = item_page(run_view(found, is_whole=False), step, number)
    return render(request, "dashboard/items.html", {"run": found, "listed": listed})


@require_safe
@login_required
@never_cache
def artifact(request: HttpRequest, pk: int, artifact: int) -> FileResponse:
    """The content of a file that was kept, to be saved and never shown: an agent wrote it."""
    try:
        kept, file = open_artifact(find_run(person(request), pk), artifact)
    except NotFound as exc:
        raise Http404(exc.message) from exc
    name = kept.path.rpartition("/")[2]
    answer = FileResponse(file, as_attachment=True, filename=name, content_type="application/octet-stream")
    answer["X-Content-Type-Options"] = "nosniff"
    answer["Content-Security-Policy"] = "default-src 'none'; sandbox"
    return answer


@require_safe
@viewers_only
@never_cache
def workers(request: HttpRequest) -> HttpResponse:
    """Which workers live."""
    views = worker_views()
    return render(request, "dashboard/workers.html", {"workers": views, "problems": problems(views)})
