"""The pages on which people decide."""

from __future__ import annotations

import re
from typing import Any

import pytest
from django.test import Client

from djinn.accounts.models import Role, User
from djinn.runs.models import Approval, Run
from tests.dashboard.make import Browser, make_approval, make_run, make_user
from tests.make import begin, played, step, succeeded, work

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("home")]

BUILD = step("BUILD", played(finished=succeeded(RESULT="good")), outputs=["RESULT"])
EVIL = "</p><script>alert(1)</script><img src=x onerror=alert(1)>"


def asked(**approve: Any) -> Approval:
    """The open question of a run."""
    gate = {"id": "GATE", "approve": {"show": ["diff", "RESULT"], **approve}, "input": "Ship {{ RESULT }}?"}
    work(begin(BUILD, gate))
    return Approval.objects.select_related("step_run__run").get(status="open")


def say(client: Client, approval: Approval, verdict: str = "approve", **fields: str) -> str:
    """The page that is shown after the decision."""
    data = {"verdict": verdict, "digest": approval.digest, **fields}
    return client.post(f"/approvals/{approval.pk}/decide/", data, follow=True).content.decode()


def page_of(client: Client, run: Run) -> str:
    return client.get(f"/runs/{run.pk}/").content.decode()


@pytest.mark.parametrize(("verdict", "status"), [("approve", "succeeded"), ("reject", "failed")])
def test_a_person_decides_on_the_page_of_the_run(browse: Browser, operator: User, verdict: str, status: str) -> None:
    approval = asked()
    page = say(browse(operator), approval, verdict, comment="I have looked.\r\nWell.")
    assert {"approve": "Approved.", "reject": "Rejected."}[verdict] in page
    assert approval.decisions.get().comment == "I have looked.\nWell."
    assert work(approval.step_run.run).status == status


def test_the_run_tells_what_is_asked_and_shown_of_whom_and_until_when(browse: Browser, operator: User) -> None:
    approval = asked(count=2, by=["operator", "ada"], expires="1h")
    assert approval.expires_at is not None
    question = page_of(browse(operator), approval.step_run.run).partition('id="run-approvals"')[2]
    wanted = [
        "Ship good?", "<dt>RESULT</dt><dd>good</dd>", "2 approvals needed by operator or ada",
        f"{approval.expires_at:%Y-%m-%d %H:%M}", f'value="{approval.digest}"',
    ]  # fmt: skip
    assert [text for text in wanted if text not in question] == []


def test_the_diff_is_shown_with_the_question(browse: Browser, admin: User) -> None:
    page = page_of(browse(admin), make_approval(make_run()).step_run.run)
    assert 'data-kind="added">+new line<' in page.partition('id="run-approvals"')[2]


def test_what_changed_meanwhile_is_told_and_asked_again(browse: Browser, operator: User) -> None:
    approval = asked()
    Run.objects.update(digest="9" * 64)
    page = say(browse(operator), approval)
    fresh = Approval.objects.get(status="open")
    assert "What you saw has changed" in page
    assert f'action="/approvals/{fresh.pk}/decide/"' in page
    assert f'value="{fresh.digest}"' in page


def test_a_decision_on_what_was_not_seen_is_refused(browse: Browser, operator: User) -> None:
    approval = asked()
    page = say(browse(operator), approval, digest="1" * 64)
    assert ("What you saw has changed" in page, approval.decisions.count()) == (True, 0)


@pytest.mark.parametrize("data", [{}, {"verdict": "perhaps"}, {"digest": ""}, {"comment": "x" * 4001}])
def test_a_form_that_is_not_complete_decides_nothing(browse: Browser, operator: User, data: dict[str, str]) -> None:
    approval = asked()
    sent = {"verdict": "approve", "digest": approval.digest, **data} if data else {}
    page = browse(operator).post(f"/approvals/{approval.pk}/decide/", sent, follow=True).content.decode()
    assert ('data-tone="warning"' in page, approval.decisions.count()) == (True, 0)


def test_who_may_not_decide_sees_the_question_without_a_form(browse: Browser, viewer: User) -> None:
    approval = asked()
    page = page_of(browse(viewer), approval.step_run.run)
    assert ("You are not asked to decide this." in page, "/decide/" in page) == (True, False)


def test_an_owner_without_a_role_decides_what_names_them(browse: Browser) -> None:
    otto = make_user("otto")
    approval = asked(by=["otto"])
    Run.objects.update(created_by=otto)
    say(browse(otto), approval)
    approval.refresh_from_db()
    assert approval.status == "approved"


def test_who_has_decided_is_told_that_others_have_to(browse: Browser, operator: User) -> None:
    approval = asked(count=2)
    page = say(browse(operator), approval)
    assert "You decided; others have to decide too." in page
    assert "1 approval needed" in page


def test_the_inbox_has_what_is_mine_first_and_the_navigation_counts_it(browse: Browser, operator: User) -> None:
    mine = make_approval(make_run(), by=["operator"], question="Is this mine?")
    other = make_approval(make_run(), by=["ada"], question="Is this hers?")
    page = browse(operator).get("/approvals/").content.decode()
    own, _, others = page.partition('id="others"')
    assert (f'href="/approvals/{mine.pk}/"' in own, f'href="/approvals/{other.pk}/"' in others) == (True, True)
    assert 'class="badge">1<' in page


def test_an_outsiders_inbox_holds_nothing_of_others(browse: Browser, outsider: User) -> None:
    make_approval(make_run(), by=["otto"], question="Is this mine?")
    page = browse(outsider).get("/approvals/").content.decode()
    assert ("Is this mine?" in page, "badge" in page) == (False, False)


@pytest.mark.parametrize("path", ["/runs/{run}/", "/approvals/", "/approvals/{approval}/", "/runs/{run}/approvals/"])
def test_a_question_is_text_wherever_it_is_shown(browse: Browser, operator: User, path: str) -> None:
    diff = f"diff --git a/{EVIL} b/{EVIL}\n@@ -0,0 +1 @@\n+{EVIL}\n"
    shown = {"outputs": {EVIL: EVIL}, "diff": f"# {EVIL}\n{diff}"}
    approval = make_approval(make_run(), by=["operator", EVIL], question=EVIL, shown=shown)
    page = browse(operator).get(path.format(run=approval.step_run.run_id, approval=approval.pk)).content.decode()
    assert not re.search(r"<script>alert|<img src=x", page)


def test_an_answered_question_stays_on_the_page_with_who_said_what(browse: Browser, operator: User) -> None:
    approval = asked()
    say(browse(operator), approval, "reject", comment="Not yet.")
    page = page_of(browse(operator), work(approval.step_run.run)).partition('class="answered"')[2]
    assert ("<strong>olga</strong> rejected" in page, "Not yet." in page) == (True, True)


@pytest.fixture
def admin(db: None) -> User:
    return make_user("anna", Role.ADMIN)
