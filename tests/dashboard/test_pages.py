"""The pages, asked by owner, members, an outsider and nobody."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.test import Client
from pytest_django import Settings

from djinn.accounts.models import Role, User
from djinn.dashboard.selectors import EVENTS_A_PAGE, RUNS_A_PAGE
from djinn.runs.models import Run
from tests.dashboard.make import (
    Browser,
    end_run,
    end_step,
    make_approval,
    make_call,
    make_run,
    make_step,
    make_user,
    tell,
)

pytestmark = pytest.mark.django_db

PIPELINE = """\
name: Greeting
description: Says hello
inputs:
  who: string
  times: {type: integer, default: 2, description: how often}
  loud: {type: boolean, default: false}
  tone: {default: kind, choices: [kind, stern]}
  letter: {type: text, required: false}
steps:
  - id: hello
    run: echo hello
"""


@pytest.fixture
def greeting(pipelines: Path) -> Path:
    file = pipelines / "greeting.yaml"
    file.write_text(PIPELINE)
    return file


def test_nobody_is_sent_to_the_login(client: Client, operator: User) -> None:
    run = make_run(operator)
    pages = ["/", f"/runs/{run.pk}/", "/start/", "/start/greeting/"]
    assert [client.get(page).headers.get("Location") for page in pages] == [f"/login/?next={page}" for page in pages]


def test_nobody_cancels_nothing(client: Client, operator: User) -> None:
    run = make_run(operator)
    assert client.post(f"/runs/{run.pk}/cancel/").status_code == 302
    run.refresh_from_db()
    assert run.cancel_requested_at is None


def test_a_viewer_sees_the_run_of_somebody_else(browse: Browser, viewer: User, operator: User) -> None:
    assert browse(viewer).get(f"/runs/{make_run(operator).pk}/").status_code == 200


def test_an_outsider_does_not_learn_that_a_run_exists(browse: Browser, outsider: User, operator: User) -> None:
    assert browse(outsider).get(f"/runs/{make_run(operator).pk}/").status_code == 404


def test_an_owner_without_a_role_sees_their_run(browse: Browser, outsider: User) -> None:
    assert browse(outsider).get(f"/runs/{make_run(outsider).pk}/").status_code == 200


def test_an_outsiders_list_holds_only_their_runs(browse: Browser, outsider: User, operator: User) -> None:
    make_run(operator, pipeline="theirs")
    make_run(outsider, pipeline="mine")
    assert _pipelines(browse(outsider).get("/").content.decode()) == ["mine"]


@pytest.mark.parametrize("page", ["/start/", "/start/greeting/"])
@pytest.mark.parametrize(
    ("role", "status"), [(Role.NONE, 403), (Role.VIEWER, 403), (Role.OPERATOR, 200), (Role.ADMIN, 200)]
)
def test_only_operators_see_how_to_start(browse: Browser, greeting: Path, page: str, role: Role, status: int) -> None:
    assert browse(make_user("someone", role)).get(page).status_code == status


@pytest.mark.parametrize("role", [Role.NONE, Role.VIEWER])
def test_only_operators_start(browse: Browser, greeting: Path, role: Role) -> None:
    answer = browse(make_user("someone", role)).post("/start/greeting/", _filled())
    assert (answer.status_code, Run.objects.count()) == (403, 0)


def test_only_operators_cancel(browse: Browser, viewer: User) -> None:
    run = make_run(viewer)
    assert browse(viewer).post(f"/runs/{run.pk}/cancel/").status_code == 403
    run.refresh_from_db()
    assert run.cancel_requested_at is None


def test_a_viewer_is_not_offered_to_cancel(browse: Browser, viewer: User) -> None:
    assert "/cancel/" not in browse(viewer).get(f"/runs/{make_run(viewer).pk}/").content.decode()


def test_an_operator_cancels(browse: Browser, operator: User) -> None:
    run = make_run(operator)
    browse(operator).post(f"/runs/{run.pk}/cancel/")
    run.refresh_from_db()
    assert run.cancelled_by == operator


def test_cancelling_a_run_that_has_ended_says_so(browse: Browser, operator: User) -> None:
    run = make_run(operator)
    make_step(run)
    end_run(run)
    page = browse(operator).post(f"/runs/{run.pk}/cancel/", follow=True).content.decode()
    assert "has ended already" in page


def test_a_form_from_elsewhere_is_refused(operator: User) -> None:
    run = make_run(operator)
    client = Client(enforce_csrf_checks=True)
    client.force_login(operator)
    answer = client.post(f"/runs/{run.pk}/cancel/")
    assert (answer.status_code, "The form is too old" in answer.content.decode()) == (403, True)


@pytest.mark.parametrize("page", ["/", "/runs/{run}/", "/runs/{run}/rerun/", "/runs/{run}/note/", "/approvals/{gate}/"])
def test_every_form_that_changes_something_proves_where_it_is_from(browse: Browser, operator: User, page: str) -> None:
    gate = make_approval(make_run(operator, agents={"writer": {}}), by=["operator"])
    html = browse(operator).get(page.format(run=gate.step_run.run_id, gate=gate.pk)).content.decode()
    forms = re.findall(r'<form[^>]*method="post".*?</form>', html, re.DOTALL)
    assert len(forms) > 1  # the one that logs out, and those of the page
    assert [form for form in forms if 'name="csrfmiddlewaretoken"' not in form] == []


def test_a_person_logs_in_and_out(client: Client, operator: User) -> None:
    assert client.post("/login/", {"username": "olga", "password": "correct horse"}).headers["Location"] == "/"
    assert client.get("/").status_code == 200
    client.post("/logout/")
    assert client.get("/").status_code == 302


def test_an_empty_list_says_how_to_start(browse: Browser, operator: User) -> None:
    assert 'href="/start/"' in browse(operator).get("/").content.decode().partition('class="empty"')[2]


def test_the_list_is_newest_first_and_pages_by_cursor(browse: Browser, viewer: User) -> None:
    runs = [make_run(pipeline=f"p{number:03}").pipeline for number in range(RUNS_A_PAGE + 3)][::-1]
    client = browse(viewer)
    first = client.get("/").content.decode()
    second = client.get("/" + _link(first, "next")).content.decode()
    back = client.get("/" + _link(second, "prev")).content.decode()
    assert [_pipelines(page) for page in (first, second, back)] == [
        runs[:RUNS_A_PAGE],
        runs[RUNS_A_PAGE:],
        runs[:RUNS_A_PAGE],
    ]


def test_the_list_is_filtered_by_status_and_pipeline(browse: Browser, viewer: User) -> None:
    for name in ("one", "two"):
        run = make_run(pipeline=name)
        make_step(run)
        end_run(run, "failed", reason="error")
        make_run(pipeline=name)
    assert _pipelines(browse(viewer).get("/?status=failed&pipeline=two").content.decode()) == ["two"]


@pytest.mark.parametrize(
    "query", ["?status=nonsense", "?older=x", "?newer=-1", "?older=99999999999999999999", "?pipeline=%00"]
)
def test_a_filter_that_makes_no_sense_is_no_error(browse: Browser, viewer: User, query: str) -> None:
    assert browse(viewer).get("/" + query).status_code == 200


def test_the_list_shows_what_a_run_cost(browse: Browser, viewer: User) -> None:
    step = make_step(make_run())
    make_call(step)
    make_call(step, cost="1.50")
    assert "$1.51" in browse(viewer).get("/").content.decode()


def test_an_unknown_cost_is_not_shown_as_nothing(browse: Browser, viewer: User) -> None:
    make_call(make_step(make_run()), cost=None)
    assert re.search(r'data-label="Cost"[^>]*>unknown<', browse(viewer).get("/").content.decode())


def test_starting_makes_a_run_with_typed_inputs(browse: Browser, operator: User, greeting: Path) -> None:
    browse(operator).post("/start/greeting/", _filled())
    assert Run.objects.get().inputs == {"who": "Ada", "times": 3, "loud": True, "tone": "stern", "letter": "a\nb"}


def test_pressing_start_twice_makes_one_run(browse: Browser, operator: User, greeting: Path) -> None:
    client = browse(operator)
    targets = {client.post("/start/greeting/", _filled()).headers["Location"] for _ in range(2)}
    assert targets == {f"/runs/{Run.objects.get().pk}/"}


def test_other_values_from_the_same_page_make_another_run(browse: Browser, operator: User, greeting: Path) -> None:
    client = browse(operator)
    client.post("/start/greeting/", _filled())
    client.post("/start/greeting/", _filled() | {"input-who": "Bob"})
    assert Run.objects.count() == 2


@pytest.mark.parametrize(
    ("field", "value"),
    [("who", ""), ("times", "two"), ("tone", "rude"), ("loud", "perhaps"), ("who", "x\x00"), ("who", "a" * 300_000)],
)
def test_a_wrong_input_is_told_at_its_field(
    browse: Browser, operator: User, greeting: Path, field: str, value: str
) -> None:
    answer = browse(operator).post("/start/greeting/", _filled() | {f"input-{field}": value})
    assert (answer.status_code, f'id="id_input-{field}_error"' in answer.content.decode()) == (400, True)


def test_a_file_that_cannot_be_run_is_told_on_the_page_of_pipelines(
    browse: Browser, operator: User, greeting: Path
) -> None:
    (greeting.parent / "broken.yaml").write_text("steps: 7\n")
    page = browse(operator).get("/start/").content.decode()
    assert "broken.yaml" in page.partition("Files that cannot be run")[2]


def test_a_typo_in_an_agents_file_is_told_on_the_page_of_pipelines(
    browse: Browser, operator: User, greeting: Path, tmp_path: Path, settings: Settings
) -> None:
    settings.AGENTS_DIRECTORY = tmp_path / "agents"
    folder = settings.AGENTS_DIRECTORY / "ada"
    folder.mkdir(parents=True)
    (folder / "agent.yaml").write_text("name: Ada\nmodle: x/y\n")
    (folder / "persona.md").write_text("You are Ada.")
    (greeting.parent / "asks.yaml").write_text("steps: [{id: A, agent: ada, input: x}]\n")
    page = browse(operator).get("/start/").content.decode()
    files, _, agents = page.partition("Files that cannot be run")[2].partition("Agents that cannot be used")
    for part in (files, agents):
        assert "agents/ada/agent.yaml:2: key modle: unknown key &#x27;modle&#x27;; did you mean" in part


def test_the_page_of_a_broken_file_tells_its_problems(browse: Browser, operator: User, greeting: Path) -> None:
    (greeting.parent / "broken.yaml").write_text("steps: 7\n")
    answer = browse(operator).get("/start/broken/")
    assert (answer.status_code, "steps" in answer.content.decode()) == (400, True)


def test_an_unknown_pipeline_is_not_found(browse: Browser, operator: User, greeting: Path) -> None:
    assert browse(operator).get("/start/other/").status_code == 404


def test_a_failed_run_says_why_in_plain_sight(browse: Browser, viewer: User) -> None:
    run = make_run()
    make_step(run)
    end_run(run, "failed", reason="timeout", message="the step took 61 s")
    page = browse(viewer).get(f"/runs/{run.pk}/").content.decode()
    status = page.partition('id="run-status"')[2].partition('id="run-figures"')[0]
    assert "It took longer than its timeout" in status
    assert "the step took 61 s" in status


def test_the_page_shows_steps_outputs_files_and_the_signed_diff(browse: Browser, viewer: User) -> None:
    run = make_run(inputs={"topic": "lamps"})
    step = make_step(run)
    end_step(step, outputs={"verdict": "all good"}, summary="It works.")
    page = browse(viewer).get(f"/runs/{run.pk}/").content.decode()
    wanted = [
        "lamps", f'href="#step-run-{step.pk}"', f'<section id="step-run-{step.pk}"', "all good", "It works.",
        "<code>notes.txt</code>", 'data-kind="added">+new line<', 'data-kind="removed">-old line<',
    ]  # fmt: skip
    assert [text for text in wanted if text not in page] == []


def test_what_came_from_a_container_is_text(browse: Browser, viewer: User) -> None:
    evil = "</samp><script>alert(1)</script>"
    run = make_run(inputs={evil: evil})
    step = make_step(run, step=evil)
    kinds = [
        "text",
        "thinking",
        "message",
        "tool_call",
        "tool_result",
        "output",
        "file_changed",
        "usage",
        "log",
        "finished",
        "odd",
    ]
    names = [
        "text",
        "name",
        "arguments",
        "stream",
        "path",
        "change",
        "message",
        "level",
        "status",
        "error",
        "input_tokens",
    ]
    tell(step, *[(kind, dict.fromkeys(names, evil)) for kind in kinds])
    end_step(step, outputs={evil: evil}, summary=evil)
    page = browse(viewer).get(f"/runs/{run.pk}/").content.decode()
    assert "<script>alert" not in page


def test_a_long_log_is_shown_in_pages_that_miss_and_repeat_nothing(browse: Browser, viewer: User) -> None:
    run = make_run()
    step = make_step(run)
    tell(step, *[("log", {"level": "info", "message": f"line {number}."}) for number in range(2 * EVENTS_A_PAGE + 10)])
    client, found, query = browse(viewer), [], ""
    while query is not None:
        page = client.get(f"/runs/{run.pk}/{query}").content.decode()
        found[:0] = re.findall(r"line (\d+)\.", page)
        query = _link(page, "prev", default=None)
    assert found == [str(number) for number in range(2 * EVENTS_A_PAGE + 10)]


def test_a_page_of_earlier_events_is_not_live(browse: Browser, viewer: User) -> None:
    run = make_run()
    make_step(run)
    assert "ws-connect" not in browse(viewer).get(f"/runs/{run.pk}/?before=3").content.decode()


@pytest.mark.parametrize("before", ["0", "x", "-1", "9" * 18, "9" * 40, "²"])
def test_any_cursor_gives_a_page(browse: Browser, viewer: User, before: str) -> None:
    assert browse(viewer).get(f"/runs/{make_run().pk}/", {"before": before}).status_code == 200


def test_a_number_that_no_run_can_have_is_not_found(browse: Browser, viewer: User) -> None:
    assert browse(viewer).get(f"/runs/{10**30}/").status_code == 404


@pytest.mark.parametrize("page", ["/login/", "/", "/nowhere/", "/start/", "/approvals/", "/schedules/", "/workers/"])
def test_every_page_forbids_what_is_inline_or_from_elsewhere(browse: Browser, viewer: User, page: str) -> None:
    answer = browse(viewer).get(page)
    assert "script-src 'self'; style-src 'self'" in answer.headers["Content-Security-Policy"]
    assert not re.search(
        r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)|https?://(?!www\.w3)", answer.content.decode()
    )


def _filled() -> dict[str, object]:
    return {
        "nonce": "abc", "model": "", "input-who": "Ada", "input-times": "3", "input-loud": "true",
        "input-tone": "stern",
        "input-letter": "a\r\nb",
    }  # fmt: skip


def _pipelines(page: str) -> list[str]:
    return re.findall(r'data-label="Pipeline"><a [^>]*>([^<]*)<', page)


def _link(page: str, relation: str, default: str | None = "") -> str | None:
    found = re.search(rf'rel="{relation}" href="([^"#]*)', page)
    return found[1].replace("&amp;", "&") if found else default
