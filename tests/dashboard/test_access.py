"""What every page says of who may see what, and of what isolates the steps."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from djinn.accounts.models import Role, User
from djinn.core.models import WorkerBeat
from tests.dashboard.make import Browser, make_approval, make_run, make_user

pytestmark = pytest.mark.django_db
PAGES = ["/", "/start/", "/approvals/", "/schedules/", "/workers/", "/runs/{run}/", "/runs/{run}/note/", "/nothing/"]
WARNING = "Steps are not isolated"


def beat(host: str, *, isolates: bool, kind: str = "agents") -> None:
    WorkerBeat.objects.create(worker=f"{kind}@{host}", kind=kind, host=host, isolates=isolates)


def page_of(browse: Browser, user: User, address: str = "/") -> str:
    return browse(user).get(address).content.decode()


# --- Isolation --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("address", PAGES)
def test_every_page_warns_while_a_worker_does_not_isolate(browse: Browser, operator: User, address: str) -> None:
    run = make_run(operator, agents={"writer": {}})
    beat("desk", isolates=False)
    html = page_of(browse, operator, address.format(run=run.pk))
    assert (WARNING in html, "<code>desk</code>" in html) == (True, True)


def test_no_page_warns_while_every_worker_isolates(browse: Browser, operator: User) -> None:
    beat("desk", isolates=True)
    beat("desk", isolates=True, kind="control")
    assert WARNING not in page_of(browse, operator)


def test_only_the_hosts_that_do_not_isolate_are_named_and_not_all_of_many(browse: Browser, operator: User) -> None:
    beat("safe", isolates=True)
    for number in range(9):
        beat(f"open-{number}", isolates=False)
    html = page_of(browse, operator)
    assert ("safe" in html, "open-0" in html, "open-8" in html, "4 more" in html) == (False, True, False, True)


def test_who_is_not_logged_in_is_told_nothing_of_it(browse: Browser, db: None) -> None:
    beat("desk", isolates=False)
    assert WARNING not in browse(None).get("/login/").content.decode()


def test_the_page_of_workers_says_which_isolate(browse: Browser, viewer: User) -> None:
    beat("desk", isolates=False)
    assert "not isolated" in page_of(browse, viewer, "/workers/")


def test_the_warning_costs_one_query_however_many_workers_there_are(browse: Browser, operator: User) -> None:
    counts = []
    for number in (10, 90):
        for each in range(number):
            beat(f"{number}-{each}", isolates=False)
        with CaptureQueriesContext(
            connection,
        ) as caught:
            page_of(browse, operator)
        counts.append(len(caught))
    assert counts[0] == counts[1]


# --- Access -----------------------------------------------------------------------------------------------------------
def test_who_has_no_role_is_told_whom_to_ask(browse: Browser, outsider: User, operator: User) -> None:
    make_user("ada", Role.ADMIN)
    make_user("former", Role.ADMIN, is_active=False)
    User.objects.create_superuser("root")
    make_run(operator)
    html = page_of(browse, outsider)
    assert "You don't have access to runs yet." in html.replace("&#x27;", "'")
    assert "Ask an administrator: ada, root" in " ".join(html.split())
    assert ("no runs yet." in html, "former" in html) == (False, False)


def test_many_administrators_are_not_all_named(browse: Browser, outsider: User) -> None:
    for number in range(9):
        make_user(f"admin-{number}", Role.ADMIN)
    html = page_of(browse, outsider)
    assert ("admin-0" in html, "admin-8" in html) == (True, False)


def test_without_an_administrator_nobody_is_named(browse: Browser, outsider: User) -> None:
    assert "Ask an administrator." in page_of(browse, outsider)


def test_who_has_no_role_but_runs_of_their_own_sees_that_it_is_those_only(browse: Browser, outsider: User) -> None:
    make_run(outsider)
    assert "You see only runs that you started." in page_of(browse, outsider)


def test_a_viewer_of_an_empty_list_is_told_that_there_are_no_runs(browse: Browser, viewer: User) -> None:
    html = page_of(browse, viewer)
    assert ("No runs yet" in html, "access to runs" in html) == (True, False)


@pytest.mark.parametrize("address", ["/workers/", "/start/"])
def test_a_refused_page_names_whom_to_ask(browse: Browser, outsider: User, address: str) -> None:
    make_user("ada", Role.ADMIN)
    answer = browse(outsider).get(address)
    html = answer.content.decode().replace("&#x27;", "'")
    assert (answer.status_code, "You don't have permission" in html, "ada" in html) == (403, True, True)


def test_an_approval_of_a_run_is_no_page_of_whom_it_is_not_for(browse: Browser, outsider: User, operator: User) -> None:
    approval = make_approval(make_run(operator))
    assert browse(outsider).get(f"/approvals/{approval.pk}/").status_code == 404
