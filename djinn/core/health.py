"""What a load balancer or `manage.py up` asks."""

from __future__ import annotations

from collections.abc import Sequence

from django.db import Error
from django.http import HttpRequest, HttpResponse, JsonResponse

from djinn.core.liveness import Kind, WorkerView, problems, worker_views

NO_DATABASE = "the database does not answer"


def healthz(request: HttpRequest) -> HttpResponse:
    """The process answers."""
    return HttpResponse("ok")


def readyz(request: HttpRequest) -> HttpResponse:
    """Djinn can work: the database answers, and workers of each kind live. JSON when it is asked for."""
    try:
        views = worker_views()
        found = problems(views)
    except Error:
        views, found = [], [NO_DATABASE]
    status = 503 if found else 200
    if "application/json" not in request.headers.get("Accept", ""):
        return HttpResponse("; ".join(found) or "ready", status=status)
    workers = {kind: _figures([view for view in views if view.kind == kind]) for kind in Kind.values}
    return JsonResponse({"ready": not found, "problems": found, "workers": workers}, status=status)


def _figures(views: Sequence[WorkerView]) -> dict[str, float | int | None]:
    """Figures of one kind. Anybody may ask, so no names."""
    latest = min((view.silent_seconds for view in views), default=None)
    return {
        "alive": sum(view.state != "silent" for view in views),
        "silent": sum(view.state == "silent" for view in views),
        "seconds_since_canary": None if latest is None else round(latest, 1),
    }
