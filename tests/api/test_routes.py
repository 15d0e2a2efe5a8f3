"""Every route of the web process, asked by nobody, an outsider, a viewer, an operator and an administrator."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.test import Client
from django.urls import URLPattern, URLResolver, get_resolver

from djinn.accounts.models import User
from tests.api.conftest import make_schedule
from tests.dashboard.make import make_approval, make_run

ROLES = ("nobody", "none", "viewer", "operator", "admin")
LOGIN = 302
RUN = "(?P<pk>[0-9]{1,18})/"
ROUTES: dict[str, list[tuple[str, str, tuple[int, int, int, int, int]]]] = {
    "healthz": [("GET", "/healthz", (200, 200, 200, 200, 200))],
    "readyz": [("GET", "/readyz", (503, 503, 503, 503, 503))],  # no worker has run a canary here
    "api/v1/^runs/$": [
        ("GET", "/api/v1/runs/", (401, 200, 200, 200, 200)),
        ("POST", "/api/v1/runs/", (401, 403, 403, 201, 201)),
        ("DELETE", "/api/v1/runs/", (401, 403, 403, 405, 405)),
    ],
    f"api/v1/^runs/{RUN}$": [
        ("GET", "/api/v1/runs/{run}/", (401, 404, 200, 200, 200)),
        ("DELETE", "/api/v1/runs/{run}/", (401, 403, 403, 405, 405)),
    ],
    f"api/v1/^runs/{RUN}cancel/$": [
        ("POST", "/api/v1/runs/{run}/cancel/", (401, 403, 403, 202, 202)),
        ("GET", "/api/v1/runs/{run}/cancel/", (401, 405, 405, 405, 405)),
    ],
    f"api/v1/^runs/{RUN}events/$": [
        ("GET", "/api/v1/runs/{run}/events/", (401, 404, 200, 200, 200)),
        ("POST", "/api/v1/runs/{run}/events/", (401, 403, 403, 405, 405)),
    ],
    "api/v1/^schedules/$": [
        ("GET", "/api/v1/schedules/", (401, 200, 200, 200, 200)),
        ("POST", "/api/v1/schedules/", (401, 403, 403, 201, 201)),
        ("DELETE", "/api/v1/schedules/", (401, 403, 403, 405, 405)),
    ],
    f"api/v1/^schedules/{RUN}$": [
        ("GET", "/api/v1/schedules/{schedule}/", (401, 404, 200, 200, 200)),
        ("PATCH", "/api/v1/schedules/{schedule}/", (401, 403, 403, 200, 200)),
        ("PUT", "/api/v1/schedules/{schedule}/", (401, 403, 403, 405, 405)),
        ("DELETE", "/api/v1/schedules/{schedule}/", (401, 403, 403, 204, 204)),
    ],
    f"api/v1/^schedules/{RUN}start/$": [
        ("POST", "/api/v1/schedules/{schedule}/start/", (401, 403, 403, 201, 201)),
        ("GET", "/api/v1/schedules/{schedule}/start/", (401, 405, 405, 405, 405)),
    ],
    "api/v1/^runs/cancel/$": [("POST", "/api/v1/runs/cancel/", (401, 403, 403, 200, 200))],
    "api/v1/^runs/retry/$": [("POST", "/api/v1/runs/retry/", (401, 403, 403, 200, 200))],
    **{  # 409: the run is open, or its definition cannot be read
        f"api/v1/^runs/{RUN}{verb}/$": [
            ("POST", f"/api/v1/runs/{{run}}/{verb}/", (401, 403, 403, status, status)),
            ("GET", f"/api/v1/runs/{{run}}/{verb}/", (401, 405, 405, 405, 405)),
        ]
        for status, verbs in ((202, ("pause", "resume")), (409, ("notes", "retry", "rerun", "restart")))
        for verb in verbs
    },
    **{
        f"api/v1/^runs/{RUN}{part}/$": [
            ("GET", f"/api/v1/runs/{{run}}/{part}/", (401, 404, status, status, status)),
            ("POST", f"/api/v1/runs/{{run}}/{part}/", (401, 403, 403, 405, 405)),
        ]
        for part, status in {"approvals": 200, "intents": 200, "artifacts": 200, "explain": 409}.items()
    },
    f"api/v1/^runs/{RUN}artifacts/(?P<artifact>[0-9]{{1,18}})/$": [
        ("GET", "/api/v1/runs/{run}/artifacts/1/", (401, 404, 404, 404, 404)),
    ],
    "api/v1/^approvals/$": [
        ("GET", "/api/v1/approvals/", (401, 200, 200, 200, 200)),
        ("POST", "/api/v1/approvals/", (401, 405, 405, 405, 405)),
    ],
    "api/v1/^approvals/(?P<pk>[0-9]{1,18})/$": [
        ("GET", "/api/v1/approvals/{approval}/", (401, 404, 200, 200, 200)),
        ("DELETE", "/api/v1/approvals/{approval}/", (401, 405, 405, 405, 405)),
    ],
    "api/v1/^approvals/(?P<pk>[0-9]{1,18})/decide/$": [  # 403: it is for somebody else to decide
        ("POST", "/api/v1/approvals/{approval}/decide/", (401, 404, 403, 403, 409)),
        ("GET", "/api/v1/approvals/{approval}/decide/", (401, 405, 405, 405, 405)),
    ],
    "api/v1/pipelines/": [("GET", "/api/v1/pipelines/", (401, 403, 200, 200, 200))],
    "api/v1/schema/": [("GET", "/api/v1/schema/", (401, 200, 200, 200, 200))],
    "api/v1/": [("GET", "/api/v1/nothing/", (404, 404, 404, 404, 404))],
    "login/": [("GET", "/login/", (200, 200, 200, 200, 200))],
    "logout/": [("GET", "/logout/", (405, 405, 405, 405, 405)), ("POST", "/logout/", (302, 302, 302, 302, 302))],
    "": [("GET", "/", (LOGIN, 200, 200, 200, 200))],
    "runs/<row:pk>/": [("GET", "/runs/{run}/", (LOGIN, 404, 200, 200, 200))],
    "runs/<row:pk>/cancel/": [
        ("POST", "/runs/{run}/cancel/", (LOGIN, 403, 403, 302, 302)),
        ("GET", "/runs/{run}/cancel/", (405, 405, 405, 405, 405)),
    ],
    **{  # they show the run again, or for retry tell why not
        f"runs/<row:pk>/{verb}/": [
            ("POST", f"/runs/{{run}}/{verb}/", (LOGIN, 403, 403, 302, 302)),
            ("GET", f"/runs/{{run}}/{verb}/", (405, 405, 405, 405, 405)),
        ]
        for verb in ("pause", "resume", "retry")
    },
    **{  # 400: the form is not filled in
        f"runs/<row:pk>/{verb}/": [
            ("GET", f"/runs/{{run}}/{verb}/", (LOGIN, 403, 403, 200, 200)),
            ("POST", f"/runs/{{run}}/{verb}/", (LOGIN, 403, 403, 400, 400)),
        ]
        for verb in ("rerun", "note")
    },
    "runs/<row:pk>/restart/": [("GET", "/runs/{run}/restart/", (LOGIN, 403, 403, 404, 404))],  # of no pipeline
    **{
        f"runs/<row:pk>/{part}/": [("GET", f"/runs/{{run}}/{part}/", (LOGIN, 404, 200, 200, 200))]
        for part in ("actions", "approvals", "items")
    },
    "runs/<row:pk>/artifacts/<row:artifact>/": [("GET", "/runs/{run}/artifacts/1/", (LOGIN, 404, 404, 404, 404))],
    "runs/bulk/": [
        ("POST", "/runs/bulk/", (LOGIN, 403, 403, 302, 302)),
        ("GET", "/runs/bulk/", (405, 405, 405, 405, 405)),
    ],
    "approvals/": [("GET", "/approvals/", (LOGIN, 200, 200, 200, 200))],
    "approvals/<row:pk>/": [("GET", "/approvals/{approval}/", (LOGIN, 404, 200, 200, 200))],
    "approvals/<row:pk>/decide/": [  # 403: it is for somebody else to decide
        ("POST", "/approvals/{approval}/decide/", (LOGIN, 404, 403, 403, 302)),
        ("GET", "/approvals/{approval}/decide/", (405, 405, 405, 405, 405)),
    ],
    "schedules/": [("GET", "/schedules/", (LOGIN, 200, 200, 200, 200))],
    "schedules/new/": [("GET", "/schedules/new/", (LOGIN, 403, 403, 200, 200))],
    "schedules/new/<str:pipeline>/": [
        ("GET", "/schedules/new/echo/", (LOGIN, 403, 403, 200, 200)),
        ("POST", "/schedules/new/echo/", (LOGIN, 403, 403, 400, 400)),
    ],
    "schedules/<row:pk>/": [
        ("GET", "/schedules/{schedule}/", (LOGIN, 403, 403, 200, 200)),
        ("POST", "/schedules/{schedule}/", (LOGIN, 403, 403, 400, 400)),
    ],
    **{
        f"schedules/<row:pk>/{verb}/": [
            ("POST", f"/schedules/{{schedule}}/{verb}/", (LOGIN, 403, 403, 302, 302)),
            ("GET", f"/schedules/{{schedule}}/{verb}/", (405, 405, 405, 405, 405)),
        ]
        for verb in ("enable", "delete", "start")
    },
    "workers/": [("GET", "/workers/", (LOGIN, 403, 200, 200, 200))],
    "start/": [("GET", "/start/", (LOGIN, 403, 403, 200, 200))],
    "start/<str:pipeline>/": [
        ("GET", "/start/echo/", (LOGIN, 403, 403, 200, 200)),
        ("POST", "/start/echo/", (LOGIN, 403, 403, 400, 400)),
        ("GET", "/start/none/", (LOGIN, 403, 403, 404, 404)),
    ],
}
OPEN_ADMIN = {"admin/login/", "admin/logout/", "admin/jsi18n/"}
"""Django's own doors to the admin, which let everybody in by design."""
BODY = {"pipeline": "echo", "inputs": {"word": "hello"}}
SCHEDULE = {**BODY, "name": "new", "cron": "0 6 * * *"}

VERBS: dict[tuple[str, str], Any] = {
    ("POST", "/api/v1/runs/{run}/notes/"): {"text": "mind the gap", "step": "A"},
    ("POST", "/api/v1/runs/{run}/rerun/"): {"step": "A"},
    ("POST", "/api/v1/runs/{run}/restart/"): {},
    ("POST", "/api/v1/runs/cancel/"): {"ids": [1]},
    ("POST", "/api/v1/runs/retry/"): {"ids": [1]},
    ("POST", "/api/v1/approvals/{approval}/decide/"): {"verdict": "approve", "digest": "of something else"},
}


def _routes(patterns: list[URLPattern | URLResolver], before: str = "") -> Iterator[str]:
    for pattern in patterns:
        if isinstance(pattern, URLResolver):
            yield from _routes(pattern.url_patterns, before + str(pattern.pattern))
        else:
            yield before + str(pattern.pattern)


FOUND = list(_routes(get_resolver().url_patterns))
ADMIN = sorted(route for route in FOUND if route.startswith("admin/") and route not in OPEN_ADMIN)
CASES = [
    pytest.param(method, path, role, status, id=f"{method}-{path}-{role}")
    for rows in ROUTES.values()
    for method, path, expected in rows
    for role, status in zip(ROLES, expected, strict=True)
]


def test_every_route_has_a_row() -> None:
    assert {route for route in FOUND if not route.startswith("admin/")} == set(ROUTES)


@pytest.mark.parametrize(("method", "path", "role", "status"), CASES)
def test_a_route_answers_each_role_as_the_table_says(
    people: dict[str, User], pipelines: Path, method: str, path: str, role: str, status: int
) -> None:
    run = make_run(people["operator"])
    schedule, approval = make_schedule(people["operator"]), make_approval(run)
    numbers = {"run": run.pk, "schedule": schedule.pk, "approval": approval.pk}
    answer = _client(people, role).generic(method, path.format(**numbers), **_body(method, path))
    assert answer.status_code == status
    if status == LOGIN and role == "nobody" and "logout" not in path:
        assert answer.headers["Location"].startswith("/login/?next=/")


@pytest.mark.parametrize("route", ADMIN)
def test_a_page_of_the_admin_sends_everybody_but_administrators_to_its_login(
    people: dict[str, User], route: str
) -> None:
    path = "/" + route.partition("<")[0].partition("(?P")[0] + ("1/" if "<" in route else "")
    for role in ROLES[:-1]:
        answer = _client(people, role).get(path)
        assert answer.status_code == LOGIN, f"{role} at {path}"
        assert answer.headers["Location"].startswith("/admin/login/")


@pytest.mark.parametrize("route", [route for route in ADMIN if "<" not in route and "(?P" not in route])
def test_a_page_of_the_admin_can_be_rendered(people: dict[str, User], route: str) -> None:
    make_run(people["operator"])
    answer = _client(people, "admin").get(f"/{route}")
    not_for_hands = route.endswith("/add/") and answer.status_code == 403  # what the engine writes
    assert answer.status_code in {200, 302} or not_for_hands or route == "admin/autocomplete/"


@pytest.mark.parametrize("role", ["none", "viewer", "operator"])
def test_an_owner_sees_their_own_run_whatever_their_role(people: dict[str, User], role: str) -> None:
    run = make_run(people[role])
    client = _client(people, role)
    paths = (f"/runs/{run.pk}/", f"/api/v1/runs/{run.pk}/", f"/api/v1/runs/{run.pk}/events/")
    assert [client.get(path).status_code for path in paths] == [200, 200, 200]


def _client(people: dict[str, User], role: str) -> Client:
    client = Client(raise_request_exception=False)
    if role != "nobody":
        client.force_login(people[role])
    return client


def _body(method: str, path: str) -> dict[str, Any]:
    bodies = {("POST", "/api/v1/runs/"): BODY, ("POST", "/api/v1/schedules/"): SCHEDULE, **VERBS}
    body = bodies.get((method, path), {"name": "renamed"} if method == "PATCH" else None)
    return {"data": json.dumps(body), "content_type": "application/json"} if body is not None else {}
