"""The socket of a run's page, over the real Redis and the real database."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from asgiref.testing import ApplicationCommunicator
from channels.db import database_sync_to_async
from django.contrib.sessions.models import Session
from django.db import connection
from django.test import Client
from django.utils import timezone

from djinn.accounts.models import Role, User
from djinn.asgi import application
from djinn.dashboard import consumers
from djinn.events import hints
from djinn.runs.models import StepRun
from tests.dashboard.make import Browser, end_run, end_step, make_run, make_step, make_user, tell
from tests.dashboard.websocket import ends, socket

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def step(operator: User) -> StepRun:
    return make_step(make_run(operator))


def numbers(messages: list[str]) -> list[int]:
    return [int(number) for number in re.findall(r"\[(\d+)\]", "".join(messages))]


def lines(first: int, last: int) -> list[tuple[str, dict[str, object]]]:
    return [("text", {"text": f"[{number}]"}) for number in range(first, last)]


@pytest.mark.parametrize(("who", "code"), [("nobody", 4401), ("outsider", 4403), ("inactive", 4401)])
def test_who_may_not_see_the_run_is_refused_with_a_code(browse: Browser, step: StepRun, who: str, code: int) -> None:
    client = browse(None if who == "nobody" else make_user(who, Role.VIEWER if who == "inactive" else Role.NONE))
    User.objects.filter(username="inactive").update(is_active=False)

    @async_to_sync
    async def closing() -> int:
        async with socket(client, step.run) as communicator:
            return await communicator.closing_code()

    assert closing() == code


@pytest.mark.parametrize("who", ["owner", "viewer"])
def test_owner_and_viewer_get_the_events(browse: Browser, outsider: User, viewer: User, who: str) -> None:
    step = make_step(make_run(outsider))
    last = tell(step, *lines(0, 3))
    client = browse(outsider if who == "owner" else viewer)

    @async_to_sync
    async def received() -> list[str]:
        async with socket(client, step.run) as communicator:
            return await communicator.read_to(last)

    assert numbers(received()) == [0, 1, 2]


def test_a_cursor_that_is_none_is_refused(browse: Browser, operator: User, step: StepRun) -> None:
    client = browse(operator)

    @async_to_sync
    async def closing() -> int:
        async with socket(client, step.run, after="1;x") as communicator:
            return await communicator.closing_code()

    assert closing() == consumers.BAD_CURSOR


def test_a_burst_of_two_thousand_events_arrives_whole_and_in_order(
    browse: Browser, operator: User, step: StepRun
) -> None:
    client = browse(operator)

    @async_to_sync
    async def received() -> list[str]:
        async with socket(client, step.run) as communicator:
            messages = await communicator.read_to(4)
            for start in range(0, 2000, 100):
                last = await database_sync_to_async(tell)(step, *lines(start, start + 100))
            return messages + await communicator.read_to(last)

    assert numbers(received()) == list(range(2000))


def test_nothing_is_doubled_or_missing_across_reconnects(browse: Browser, operator: User, step: StepRun) -> None:
    client = browse(operator)

    @async_to_sync
    async def received() -> list[str]:
        messages: list[str] = []
        for start in range(0, 500, 50):
            last = await database_sync_to_async(tell)(step, *lines(start, start + 25))
            after = ends(messages[-1])[1] if messages else 0
            async with socket(client, step.run, after=after) as communicator:
                messages += await communicator.read_to(last)
                last = await database_sync_to_async(tell)(step, *lines(start + 25, start + 50))
                messages += await communicator.read_to(last)
        return messages

    assert numbers(received()) == list(range(500))


def test_text_behind_the_cursor_continues_the_block_that_the_page_has(
    browse: Browser, operator: User, step: StepRun
) -> None:
    client = browse(operator)
    after = tell(step, ("text", {"text": "Hel"}))
    last = tell(step, ("text", {"text": "lo"}), ("message", {"text": "Hello"}))

    @async_to_sync
    async def received() -> list[str]:
        async with socket(client, step.run, after=after) as communicator:
            return await communicator.read_to(last)

    assert f'<div hx-swap-oob="beforeend:#log-{step.pk}>:last-child">lo</div>' in received()[0]


def test_an_event_of_the_engine_brings_status_steps_and_results(browse: Browser, operator: User, step: StepRun) -> None:
    client = browse(operator)
    end_step(step, outputs={"verdict": "fine"})
    end_run(step.run)

    @async_to_sync
    async def received() -> str:
        async with socket(client, step.run, after=4) as communicator:
            return "".join(await communicator.read_to(6))

    html = received()
    targets = [
        "#run-status", "#run-figures", "#held", "#steps", "#files", "#results", "#offers-key", "#questions-key",
        f"#step-run-{step.pk}-status",
    ]  # fmt: skip
    assert [target for target in targets if f'hx-swap-oob="innerHTML:{target}"' not in html] == []


def test_what_came_from_a_container_is_text_in_a_message(browse: Browser, operator: User, step: StepRun) -> None:
    client = browse(operator)
    last = tell(
        step, ("text", {"text": '<i hx-swap-oob="true">x</i>'}), ("output", {"text": "<script>", "stream": "<b>"})
    )

    @async_to_sync
    async def received() -> str:
        async with socket(client, step.run, after=4) as communicator:
            return "".join(await communicator.read_to(last))

    assert not re.search(r"<i |<script|<b>", received())


LOSSES: dict[str, tuple[Callable[[Client, User], object], int]] = {
    "logout": (lambda client, user: client.logout(), consumers.NOT_LOGGED_IN),
    "deactivated": (lambda client, user: User.objects.filter(pk=user.pk).update(is_active=False), 4401),
    "role taken": (lambda client, user: User.objects.filter(pk=user.pk).update(role=Role.NONE), 4403),
    "password changed": (lambda client, user: _change_password(user), 4401),
    "session expired": (lambda client, user: Session.objects.update(expire_date=timezone.now()), 4401),
}


def _change_password(user: User) -> None:
    user.set_password("another one")
    user.save()


@pytest.mark.parametrize(("lose", "code"), LOSSES.values(), ids=LOSSES.keys())
def test_a_person_who_loses_the_right_is_cut_off_though_nothing_happens(
    browse: Browser, viewer: User, step: StepRun, lose: Callable[[Client, User], object], code: int
) -> None:
    client = browse(viewer)

    @async_to_sync
    async def closing() -> int:
        async with socket(client, step.run) as communicator:
            await communicator.read_to(4)
            await database_sync_to_async(lose)(client, viewer)
            return await communicator.closing_code()

    assert closing() == code


def test_losing_one_login_leaves_the_others(browse: Browser, viewer: User, step: StepRun) -> None:
    leaving, staying = browse(viewer), browse(viewer)

    @async_to_sync
    async def received() -> list[str]:
        async with socket(leaving, step.run) as one, socket(staying, step.run) as other:
            await other.read_to(4)
            await database_sync_to_async(leaving.logout)()
            assert await one.closing_code() == consumers.NOT_LOGGED_IN
            return await other.read_to(await database_sync_to_async(tell)(step, *lines(0, 1)))

    assert numbers(received()) == [0]


@pytest.mark.parametrize("path", ["/ws/", "/ws/runs/", "/ws/runs/x/", "/", "/ws/runs/1/more", "/runs/1/"])
def test_an_unknown_path_is_refused(path: str) -> None:
    headers = [(b"origin", b"http://localhost"), (b"host", b"localhost")]

    @async_to_sync
    async def answer() -> dict[str, Any]:
        scope = {"type": "websocket", "path": path, "query_string": b"", "headers": headers, "subprotocols": []}
        asked = ApplicationCommunicator(application, scope)
        await asked.send_input({"type": "websocket.connect"})
        closed: dict[str, Any] = await asked.receive_output(20)
        await asked.send_input({"type": "websocket.disconnect", "code": 1006})
        await asked.wait(20)
        return closed

    closed = answer()
    assert (closed["type"], closed["code"]) == ("websocket.close", consumers.NOT_FOUND)


def test_a_database_that_was_away_costs_a_pause_and_no_event(
    browse: Browser, operator: User, step: StepRun, caplog: pytest.LogCaptureFixture
) -> None:
    client = browse(operator)

    @async_to_sync
    async def received() -> list[str]:
        async with socket(client, step.run) as communicator:
            messages = await communicator.read_to(4)
            await database_sync_to_async(rename_table)("events_event", "events_away")
            try:
                hints.send(step.run.stream)
                async with asyncio.timeout(20):
                    while "run_not_followed" not in caplog.text:
                        await asyncio.sleep(0.02)
            finally:
                await database_sync_to_async(rename_table)("events_away", "events_event")
            last = await database_sync_to_async(tell)(step, *lines(0, 3))
            return messages + await communicator.read_to(last)

    assert numbers(received()) == [0, 1, 2]


def rename_table(old: str, new: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"ALTER TABLE {old} RENAME TO {new}")
