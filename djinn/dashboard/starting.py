"""The pages on which a run is started."""

from __future__ import annotations

from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods, require_safe

from djinn.agents.registry import load_registry
from djinn.core.errors import NotFound, UserError
from djinn.dashboard.forms import StartForm
from djinn.dashboard.permissions import operators_only, person
from djinn.pipelines.loader import Loaded
from djinn.runs.catalogue import find_pipeline, load_catalogue
from djinn.runs.services import start_run


@require_safe
@operators_only
@never_cache
def choose(request: HttpRequest) -> HttpResponse:
    """The pipelines that can be started, and what is wrong with the files that cannot."""
    return render(request, "dashboard/choose.html", {"catalogue": load_catalogue(), "agents": load_registry()})


@require_http_methods(["GET", "HEAD", "POST"])
@operators_only
@never_cache
def start(request: HttpRequest, pipeline: str) -> HttpResponse:
    """The form of one pipeline; starts it when it was sent."""
    loaded = pipeline_or_answer(request, pipeline)
    if isinstance(loaded, HttpResponse):
        return loaded
    form = StartForm(loaded.pipeline, request.POST if request.method == "POST" else None)
    if form.is_valid():
        try:
            run = start_run(
                pipeline_id=loaded.pipeline.id,
                inputs=form.inputs,
                model=form.cleaned_data["model"],
                user=person(request),
                idempotency_key=form.idempotency_key,
            )
        except UserError as exc:
            form.add_user_error(exc)
        else:
            return redirect("dashboard:run", pk=run.pk)
    status = 400 if form.is_bound else 200
    return render(request, "dashboard/start.html", {"loaded": loaded, "form": form}, status=status)


def pipeline_or_answer(request: HttpRequest, pipeline: str) -> Loaded | HttpResponse:
    """The pipeline, or the page that tells what is wrong with its file; raises Http404 when there is none."""
    try:
        return find_pipeline(pipeline)
    except NotFound as exc:
        raise Http404(exc.message) from exc
    except UserError as exc:
        return render(request, "dashboard/broken.html", {"pipeline": pipeline, "error": exc}, status=exc.status)
