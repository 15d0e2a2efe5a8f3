"""Server-sent events from a real web process."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import httpx2
import jwt
import pytest
from django.conf import settings
from django.contrib.sessions.models import Session
from django.db import transaction
from django.test import Client
from django.utils import timezone

from djinn.accounts.models import ApiToken, Role, User
from djinn.accounts.services import create_token
from djinn.events.log import NewEvent, append
from djinn.runs.models import Run
from tests.core.serving import serving
from tests.dashboard.make import make_run

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.xdist_group("sse")]
CONNECTIONS = 3
KEEP_ALIVE = {"stream-open", "keep-alive"}


@pytest.fixture(scope="module")
def web(django_db_setup: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx2.Client]:
    """A web process with few database connections."""
    folder = tmp_path_factory.mktemp("w")
    with serving("djinn.asgi", folder, DJINN_DATABASE_CONNECTIONS=str(CONNECTIONS)) as client:
        yield client


@pytest.fixture
def viewer() -> User:
    return User.objects.create_user("vera", role=Role.VIEWER)


@pytest.fixture
def run(viewer: User) -> Run:
    """A run whose log holds nine events."""
    made = make_run()
    _tell(made, 8)
    return made


def _tell(run: Run, count: int) -> None:
    with transaction.atomic():
        append(run.stream, [NewEvent("note", {"n": n}) for n in range(count)])


def _login(user: User) -> dict[str, str]:
    return {"Authorization": f"Bearer {create_token(user=user, name='test')[1]}", "Accept": "text/event-stream"}


@contextmanager
def _following(
    web: httpx2.Client, run: Run, headers: dict[str, str], query: str = ""
) -> Iterator[Iterator[dict[str, str]]]:
    with web.stream("GET", f"/api/v1/runs/{run.pk}/events/{query}", headers=headers) as response:
        assert response.status_code == 200
        assert response.headers["Content-Type"].startswith("text/event-stream")
        yield _events(response.iter_lines())


def _events(lines: Iterator[str]) -> Iterator[dict[str, str]]:
    """The events of a stream, without the ones that only keep it alive."""
    event: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        if line and not line.startswith(":"):
            event[name] = value
        elif event:
            if event["event"] not in KEEP_ALIVE:
                yield event
            event = {}


def _seqs(events: Iterator[dict[str, str]], count: int) -> list[int]:
    return [json.loads(next(events)["data"])["seq"] for _ in range(count)]


def test_a_client_without_a_cursor_reads_from_the_beginning(web: httpx2.Client, run: Run, viewer: User) -> None:
    with _following(web, run, _login(viewer)) as events:
        assert _seqs(events, 9) == list(range(1, 10))


@pytest.mark.parametrize("form", ["7", "{stream}:7"])
def test_a_client_goes_on_behind_its_last_event(web: httpx2.Client, run: Run, viewer: User, form: str) -> None:
    headers = _login(viewer) | {"Last-Event-ID": form.format(stream=run.stream)}
    with _following(web, run, headers) as events:
        first = next(events)
    assert first["id"] == f"{run.stream}:8"
    assert json.loads(first["data"]) == {
        "seq": 8,
        "type": "note",
        "at": json.loads(first["data"])["at"],
        "data": {"n": 6},
    }


def test_a_cursor_in_the_address_counts_when_there_is_no_header(web: httpx2.Client, run: Run, viewer: User) -> None:
    with _following(web, run, _login(viewer), "?after=8") as events:
        assert _seqs(events, 1) == [9]


def test_a_burst_arrives_whole_and_in_order(web: httpx2.Client, run: Run, viewer: User) -> None:
    with _following(web, run, _login(viewer) | {"Last-Event-ID": "9"}) as events:
        _tell(run, 1)
        assert _seqs(events, 1) == [10]  # it follows
        for _ in range(40):
            _tell(run, 50)
        assert _seqs(events, 2000) == list(range(11, 2011))


def test_a_cursor_that_the_stream_never_gave_out_is_told_so(web: httpx2.Client, run: Run, viewer: User) -> None:
    with _following(web, run, _login(viewer) | {"Last-Event-ID": "500"}) as events:
        reset = next(events)
        _tell(run, 1)
        assert (reset["event"], reset["id"]) == ("stream-reset", f"{run.stream}:9")
        assert _seqs(events, 1) == [10]


@pytest.mark.parametrize("cursor", ["x", "-1", "1.5", "run-0:7", "9" * 19, "error"])
def test_a_cursor_that_cannot_be_read_is_refused(web: httpx2.Client, run: Run, viewer: User, cursor: str) -> None:
    answer = web.get(f"/api/v1/runs/{run.pk}/events/", headers=_login(viewer) | {"Last-Event-ID": cursor})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid")


@pytest.mark.parametrize("change", [{"role": Role.NONE}, {"is_active": False}], ids=["role", "inactive"])
def test_who_loses_the_right_to_read_reads_no_further(
    web: httpx2.Client, run: Run, viewer: User, change: dict[str, Any]
) -> None:
    with _following(web, run, _login(viewer) | {"Last-Event-ID": "8"}) as events:
        assert _seqs(events, 1) == [9]
        User.objects.filter(pk=viewer.pk).update(**change)
        _tell(run, 1)
        last = next(events)
        if last["event"] != "stream-error":  # its read was under way when the right was taken; the next one is refused
            _tell(run, 1)
            last = next(events)
        assert (last["event"], json.loads(last["data"])["condition"]) == ("stream-error", "forbidden")
        assert list(events) == []


def _cookie(user: User) -> dict[str, str]:
    client = Client()
    client.force_login(user)
    return {"Cookie": f"sessionid={client.cookies['sessionid'].value}", "Accept": "text/event-stream"}


def _change_password(user: User) -> None:
    user.set_password("another one")
    user.save()


TOKEN, SESSION = _login, _cookie
LOSSES: dict[str, tuple[Callable[[User], dict[str, str]], Callable[[User], object]]] = {
    "token revoked": (TOKEN, lambda user: ApiToken.objects.all().delete()),
    "token expired": (TOKEN, lambda user: ApiToken.objects.update(expires_at=timezone.now())),
    "person of a token deactivated": (TOKEN, lambda user: User.objects.update(is_active=False)),
    "role of a token's person taken": (TOKEN, lambda user: User.objects.update(role=Role.NONE)),
    "logged out": (SESSION, lambda user: Session.objects.all().delete()),
    "session expired": (SESSION, lambda user: Session.objects.update(expire_date=timezone.now())),
    "password changed": (SESSION, _change_password),
    "person of a session deactivated": (SESSION, lambda user: User.objects.update(is_active=False)),
}


@pytest.mark.parametrize(("come_in", "lose"), LOSSES.values(), ids=LOSSES.keys())
def test_a_stream_ends_with_what_let_its_reader_in_though_nothing_happens(
    web: httpx2.Client,
    run: Run,
    viewer: User,
    come_in: Callable[[User], dict[str, str]],
    lose: Callable[[User], object],
) -> None:
    with _following(web, run, come_in(viewer) | {"Last-Event-ID": "8"}) as events:
        assert _seqs(events, 1) == [9]
        lose(viewer)
        last = next(events)
        assert (last["event"], json.loads(last["data"])["condition"]) == ("stream-error", "forbidden")
        assert list(events) == []


def test_a_stream_outlives_other_tokens_of_its_reader(web: httpx2.Client, run: Run, viewer: User) -> None:
    with (
        _following(web, run, _login(viewer)) as ended,
        _following(web, run, _login(viewer) | {"Last-Event-ID": "9"}) as events,
    ):
        assert _seqs(ended, 9)
        ApiToken.objects.filter(pk=ApiToken.objects.earliest("pk").pk).delete()
        assert [event["event"] for event in ended] == ["stream-error"]
        _tell(run, 1)
        assert _seqs(events, 1) == [10]


def test_no_query_parameter_of_the_package_changes_what_is_read(web: httpx2.Client, run: Run, viewer: User) -> None:
    other = make_run()
    outsider = User.objects.create_user("otto", role=Role.NONE)
    meta = jwt.encode({"channels": [other.stream], "user": viewer.pk, "exp": 2**33}, settings.SECRET_KEY, "HS256")
    query = f"?es-meta={meta}&channel={other.stream}&lastEventId={run.stream}:8&link=next&recover=true"
    with _following(web, run, _login(viewer), query) as events:
        assert _seqs(events, 9) == list(range(1, 10))
    assert web.get(f"/api/v1/runs/{run.pk}/events/{query}", headers=_login(outsider)).status_code == 404


def test_viewers_who_wait_hold_no_database_connection(web: httpx2.Client, run: Run, viewer: User) -> None:
    headers = _login(viewer)
    with ExitStack() as stack:
        viewers = [stack.enter_context(_following(web, run, headers)) for _ in range(3 * CONNECTIONS)]
        assert [_seqs(events, 9) for events in viewers] == [list(range(1, 10))] * len(viewers)
        page = web.get(f"/api/v1/runs/{run.pk}/", headers=headers | {"Accept": "*/*"})
        assert page.status_code == 200
