"""Watching streams over a real Redis: hints, the poll beside them, and a Redis that dies."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
import redis
from channels.layers import get_channel_layer
from pytest_django import Settings

from djinn.core.installation import servers
from djinn.core.installation.paths import Installation
from djinn.core.installation.processes import Process, Supervisor
from djinn.events import hints
from djinn.events.log import open_stream
from djinn.events.models import Stream
from djinn.events.watch import Watcher, watcher_of_this_loop

NOT_IN_THE_LOG = "run-0"
"""The poll never finds it, so whoever is woken for it was woken by a hint."""


class PrivateRedis:
    """A Redis of the test's own, that it may kill."""

    def __init__(self, home: Path) -> None:
        installation = Installation(home)
        installation.make_directories()
        self.url = installation.redis_url
        self.supervisor = Supervisor(directory=home, logs=installation.logs)
        command = servers.redis_server(installation).command
        self._process = Process("redis", command, is_ready=lambda: servers.redis_answers(self.url))

    def start(self) -> None:
        self.supervisor.start(self._process)
        self.supervisor.wait_ready("redis", timeout_seconds=30)

    def kill(self) -> None:
        os.kill(self.supervisor.pid("redis"), signal.SIGKILL)
        self.supervisor.stop()

    def drop_connections(self) -> None:
        with redis.Redis.from_url(self.url, socket_timeout=5) as client:
            client.client_kill_filter(_type="pubsub")
            client.client_kill_filter(_type="normal", skipme=True)


@pytest.fixture
def private_redis(tmp_path: Path, settings: Settings) -> Iterator[PrivateRedis]:
    """A Redis that the channel layer of this test uses."""
    made = PrivateRedis(tmp_path)
    config = {"hosts": [{"address": made.url, "socket_timeout": None}], "prefix": "djinn"}
    settings.CHANNEL_LAYERS = {"default": {**settings.CHANNEL_LAYERS["default"], "CONFIG": config}}
    made.start()
    yield made
    made.supervisor.stop()


def _run(scene: Callable[[Watcher], Awaitable[None]]) -> None:
    """Play the scene on a loop of its own, with that loop's watcher."""

    async def play() -> None:
        try:
            async with asyncio.timeout(90):
                await scene(watcher_of_this_loop())
        finally:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            await get_channel_layer().flush()

    asyncio.run(play())


async def _hint_until_heard(more: asyncio.Event) -> None:
    """Send hints until one is heard: the first ones may be sent before the watcher listens (again)."""
    while not more.is_set():
        hints.send(NOT_IN_THE_LOG)
        await asyncio.sleep(0.05)


async def _polled(more: asyncio.Event, stream: str) -> None:
    """Add to the stream as a writer does whose hint is lost, and wait for it to be found."""
    row = await Stream.objects.aget(name=stream)
    more.clear()
    await Stream.objects.filter(pk=row.pk).aupdate(last_seq=row.last_seq + 1)
    await more.wait()


@pytest.mark.django_db(transaction=True)
def test_a_viewer_is_woken_at_the_start() -> None:
    async def scene(watcher: Watcher) -> None:
        with watcher.watch(NOT_IN_THE_LOG) as more:
            assert more.is_set()

    _run(scene)


@pytest.mark.django_db(transaction=True)
def test_a_hint_reaches_the_viewers_of_its_stream(private_redis: PrivateRedis) -> None:
    async def scene(watcher: Watcher) -> None:
        with (
            watcher.watch(NOT_IN_THE_LOG) as one,
            watcher.watch(NOT_IN_THE_LOG) as two,
            watcher.watch("run-1") as other,
        ):
            await asyncio.sleep(0)
            await _first_hint(one)
            other.clear()
            one.clear()
            two.clear()
            hints.send(NOT_IN_THE_LOG)
            await one.wait()
            await two.wait()
            assert not other.is_set()

    _run(scene)


async def _first_hint(more: asyncio.Event) -> None:
    more.clear()
    await _hint_until_heard(more)


@pytest.mark.django_db(transaction=True)
def test_what_no_hint_told_is_found_by_the_poll() -> None:
    open_stream("run-1")

    async def scene(watcher: Watcher) -> None:
        with watcher.watch("run-1") as more:
            await _polled(more, "run-1")
            await _polled(more, "run-1")

    _run(scene)


@pytest.mark.django_db(transaction=True)
def test_hints_come_again_after_redis_was_killed_and_the_poll_carries_on_between(private_redis: PrivateRedis) -> None:
    open_stream("run-1")

    async def scene(watcher: Watcher) -> None:
        with watcher.watch(NOT_IN_THE_LOG) as more, watcher.watch("run-1") as polled:
            await _first_hint(more)
            private_redis.kill()
            hints.send(NOT_IN_THE_LOG)
            await _polled(polled, "run-1")
            await asyncio.to_thread(private_redis.start)
            await _first_hint(more)

    _run(scene)


@pytest.mark.django_db(transaction=True)
def test_hints_come_again_after_their_connections_were_cut(private_redis: PrivateRedis) -> None:
    async def scene(watcher: Watcher) -> None:
        with watcher.watch(NOT_IN_THE_LOG) as more:
            await _first_hint(more)
            for _ in range(3):
                private_redis.drop_connections()
                await _first_hint(more)

    _run(scene)


@pytest.mark.django_db(transaction=True)
def test_a_watcher_that_began_without_redis_hears_hints_once_it_is_there(private_redis: PrivateRedis) -> None:
    private_redis.kill()

    async def scene(watcher: Watcher) -> None:
        with watcher.watch(NOT_IN_THE_LOG) as more:
            more.clear()
            hints.send(NOT_IN_THE_LOG)
            await asyncio.to_thread(private_redis.start)
            await _first_hint(more)

    _run(scene)
