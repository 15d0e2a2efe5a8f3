"""The socket of a run's page, over the real Redis and the real database."""

from __future__ import annotations

import asyncio
import re

import pytest
from asgiref.sync import async_to_sync
from channels.auth import AuthMiddlewareStack
from channels.db import database_sync_to_async
from channels.routing import URLRouter
from django.db import connection
from django.urls import re_path

from djinn.accounts.models import Role, User
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


class StrictConsumer(consumers.RunConsumer):
    """Asks before every message whether the person may still read."""

    check_seconds = 0.0


def test_a_person_who_loses_the_right_is_cut_off(browse: Browser, viewer: User, step: StepRun) -> None:
    strict = AuthMiddlewareStack(URLRouter([re_path(r"^ws/runs/(?P<run_id>[0-9]+)/$", StrictConsumer.as_asgi())]))
    client = browse(viewer)

    @async_to_sync
    async def closing() -> int:
        async with socket(client, step.run, served_by=strict) as communicator:
            await communicator.read_to(4)
            await User.objects.filter(pk=viewer.pk).aupdate(role=Role.NONE)
            await database_sync_to_async(tell)(step, *lines(0, 1))
            return await communicator.closing_code()

    assert closing() == consumers.NOT_ALLOWED


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
