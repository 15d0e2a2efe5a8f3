"""Bounds of a connection: the head's size and time, the body's time, and who makes room when it is full."""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from uvicorn.server import ServerState

from djinn.core.serving.__main__ import trusted_proxies
from djinn.core.serving.crowd import Crowd
from djinn.core.serving.doors import Doors
from djinn.core.serving.pace import Pace
from djinn.core.serving.protocol import BoundedProtocol, Bounds

SECONDS = 20
GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
Reader, Writer = asyncio.StreamReader, asyncio.StreamWriter


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answers with the length of the body, or at once when the path says so."""
    size = 0
    while scope["path"] != "/at-once":
        message = await receive()
        size += len(message.get("body", b""))
        if message["type"] == "http.disconnect" or not message["more_body"]:
            break
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"8")]})
    await send({"type": "http.response.body", "body": b"%8d" % size})


def protocol(bounds: Bounds, crowd: Crowd | None = None, peer: str | None = None) -> BoundedProtocol:
    config = uvicorn.Config(echo, lifespan="off", log_level="warning", ws="none")
    config.load()
    return BoundedProtocol(
        config, ServerState(), {}, crowd=crowd or Crowd(most=100, most_of_one=100), bounds=bounds, peer=peer
    )


def said(path: Path, bounds: Bounds, *parts: bytes, dripping: bytes = b"") -> bytes:
    """What the server says to these bytes, and to one byte after the other, until it closes."""

    async def talk() -> bytes:
        loop = asyncio.get_running_loop()
        server = await loop.create_unix_server(lambda: protocol(bounds), path=str(path / "s"))
        try:
            return await asyncio.to_thread(_talk, path / "s", parts, dripping)
        finally:
            server.close()

    return asyncio.run(talk())


def _talk(path: Path, parts: tuple[bytes, ...], dripping: bytes) -> bytes:
    text = b""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(SECONDS)
        client.connect(str(path))
        try:
            for part in parts:
                client.sendall(part)
            while dripping and not select.select([client], [], [], 0.01)[0]:
                client.sendall(dripping)
            while part := client.recv(65536):
                text += part
        except ConnectionError:
            while part := _rest(client):
                text += part
    return text


def _rest(client: socket.socket) -> bytes:
    """What was said before the server hung up."""
    try:
        return client.recv(65536)
    except ConnectionError:
        return b""


CLOSE = b"connection: close\r\n"
LARGE = {
    "one header": b"GET / HTTP/1.1\r\na: " + b"x" * 40_000 + b"\r\n\r\n",
    "a header without an end": b"GET / HTTP/1.1\r\na: " + b"x" * 1_000_000,
    "a name without an end": b"GET / HTTP/1.1\r\n" + b"x" * 1_000_000,
    "many headers": b"GET / HTTP/1.1\r\n" + b"a: bcd\r\n" * 6000 + b"\r\n",
    "many headers without an end": b"GET / HTTP/1.1\r\n" + b"a: bcd\r\n" * 100_000,
    "the address": b"GET /" + b"x" * 40_000 + b" HTTP/1.1\r\n\r\n",
    "the address without an end": b"GET /" + b"x" * 1_000_000,
    "trailers": b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n" + b"a: bcd\r\n" * 6000 + b"\r\n",
    "an extension": b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1;" + b"x" * 1_000_000,
}


@pytest.mark.parametrize("request_bytes", LARGE.values(), ids=LARGE.keys())
def test_a_head_that_is_too_large_is_refused(tmp_path: Path, request_bytes: bytes) -> None:
    assert said(tmp_path, Bounds(), request_bytes).startswith(b"HTTP/1.1 431 ")


def test_a_head_within_the_bound_is_answered(tmp_path: Path) -> None:
    answer = said(tmp_path, Bounds(), b"GET / HTTP/1.1\r\n" + CLOSE + b"a: " + b"x" * 30_000 + b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")


def test_each_request_of_a_connection_has_the_whole_bound(tmp_path: Path) -> None:
    head = b"GET / HTTP/1.1\r\na: " + b"x" * 20_000 + b"\r\n"
    answer = said(tmp_path, Bounds(), head + b"\r\n" + head + b"\r\n" + head + CLOSE + b"\r\n")
    assert answer.count(b"HTTP/1.1 200 ") == 3


def test_a_large_body_counts_as_no_head(tmp_path: Path) -> None:
    body = b"%x\r\n%b\r\n0\r\n\r\n" % (500_000, b"x" * 500_000)
    answer = said(tmp_path, Bounds(), b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n" + CLOSE + b"\r\n" + body)
    assert answer.endswith(b"  500000")


SLOW = {
    "nothing": [],
    "half a head": [b"GET / HT"],
    "a head that never ends": [b"GET / HTTP/1.1\r\na: b\r\n"],
    "half a body": [b"POST / HTTP/1.1\r\ncontent-length: 10\r\n\r\n12345"],
    "half a body in chunks": [b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n5\r\n12345\r\n"],
    "a body whose answer is there": [b"POST /at-once HTTP/1.1\r\ncontent-length: 10\r\n\r\n12345"],
    "empty lines": [b"\r\n" * 20],
}


@pytest.mark.parametrize("parts", SLOW.values(), ids=SLOW.keys())
def test_what_does_not_arrive_in_time_is_closed(tmp_path: Path, parts: list[bytes]) -> None:
    assert b"408 Request Timeout" in said(tmp_path, Bounds(head_seconds=0.2, body_seconds=0.2), *parts)


def test_a_head_has_one_deadline_however_often_a_byte_comes(tmp_path: Path) -> None:
    assert b"408 Request Timeout" in said(tmp_path, Bounds(head_seconds=0.3), b"GET /", dripping=b"x")


def test_a_body_is_not_thrown_away_without_end(tmp_path: Path) -> None:
    parts = [b"x" * 100_000] * 100
    head = b"POST /at-once HTTP/1.1\r\ncontent-length: 10000000\r\n\r\n"
    answer = said(tmp_path, Bounds(unread_bytes=200_000), head, *parts)
    assert answer.count(b"HTTP/1.1") == 1  # it was answered, and then closed before all of it had been sent


def test_what_is_no_http_is_refused(tmp_path: Path) -> None:
    assert said(tmp_path, Bounds(), b"\x16\x03\x01 hello\r\n\r\n").startswith(b"HTTP/1.1 400 ")


# --- The crowd --------------------------------------------------------------------------------------------------------
class One:
    """A connection."""

    def __init__(self, *, is_idle: bool = True) -> None:
        self.is_idle = is_idle
        self.is_gone = self.was_cut = False

    def cut(self) -> None:
        self.was_cut = True


def test_one_peer_has_so_many_connections(tmp_path: Path) -> None:
    crowd = Crowd(most=10, most_of_one=2)
    assert [crowd.admit("a", One()) for _ in range(3)] == [True, True, False]
    assert crowd.admit("b", One())


def test_who_has_the_most_makes_room_with_the_oldest_that_is_idle() -> None:
    crowd = Crowd(most=4, most_of_one=4)
    greedy = [One(is_idle=False), One(), One(), One()]
    assert all(crowd.admit("greedy", one) for one in greedy)
    assert crowd.admit("other", One())
    assert [one.was_cut for one in greedy] == [False, True, False, False]
    assert not crowd.admit("greedy", One())  # it is the greediest itself


def test_nobody_makes_room_for_a_peer_that_has_as_much() -> None:
    crowd = Crowd(most=2, most_of_one=2)
    assert crowd.admit("a", One())
    assert crowd.admit("b", One())
    assert not crowd.admit("c", One())


def test_connections_that_work_are_not_cut() -> None:
    crowd = Crowd(most=2, most_of_one=2)
    assert all(crowd.admit("a", One(is_idle=False)) for _ in range(2))
    assert not crowd.admit("b", One())


def test_connections_that_are_gone_make_room_first() -> None:
    crowd = Crowd(most=3, most_of_one=3)
    ours = [One(), One(), One()]
    assert all(crowd.admit("a", one) for one in ours)
    ours[1].is_gone = True
    assert crowd.admit("b", One())
    assert not any(one.was_cut for one in ours)


# --- Doors ------------------------------------------------------------------------------------------------------------
Through = Callable[[Path], Awaitable[tuple[Reader, Writer]]]


@asynccontextmanager
async def doors_of(folder: Path, crowd: Crowd) -> AsyncIterator[Through]:
    """Connects through a door, once it is there."""
    made: list[BoundedProtocol] = []
    writers: list[Writer] = []

    def make(peer: str) -> BoundedProtocol:
        made.append(protocol(Bounds(), crowd, peer))
        return made[-1]

    async def through(path: Path) -> tuple[Reader, Writer]:
        while True:
            try:
                reader, writer = await asyncio.open_unix_connection(str(path / "gateway.sock"))
            except (FileNotFoundError, ConnectionRefusedError):
                await asyncio.sleep(0.01)
                continue
            writers.append(writer)
            return reader, writer

    doors = Doors(folder, make, crowd)
    tending = asyncio.create_task(doors.tend())
    try:
        async with asyncio.timeout(SECONDS):
            yield through
    finally:
        tending.cancel()
        doors.close()
        for writer in writers:
            writer.close()
        while not all(one.parser is None for one in made):
            await asyncio.sleep(0.01)


async def answers(reader: Reader, writer: Writer) -> bool:
    writer.write(GET)
    return (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")


def run(test: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(test())  # type: ignore[arg-type]


def test_a_door_opens_with_its_folder_and_closes_with_it(tmp_path: Path) -> None:
    async def test() -> None:
        async with doors_of(tmp_path, Crowd(most=10, most_of_one=10)) as through:
            (tmp_path / "7").mkdir()
            reader, writer = await through(tmp_path / "7")
            assert await answers(reader, writer)
            await reader.readexactly(8)
            (tmp_path / "7" / "gateway.sock").unlink()
            (tmp_path / "7").rmdir()
            assert await reader.read() == b""  # it is closed

    run(test)


def test_a_door_that_a_dead_server_left_is_opened_anew(tmp_path: Path) -> None:
    async def test() -> None:
        (tmp_path / "7").mkdir()
        for _ in range(2):
            async with doors_of(tmp_path, Crowd(most=10, most_of_one=10)) as through:
                assert await answers(*await through(tmp_path / "7"))

    run(test)


def test_who_has_enough_connections_waits_and_others_do_not(tmp_path: Path) -> None:
    async def test() -> None:
        crowd = Crowd(most=100, most_of_one=3)
        async with doors_of(tmp_path, crowd) as through:
            for name in "12":
                (tmp_path / name).mkdir()
            first = await through(tmp_path / "1")
            idle = [await through(tmp_path / "1") for _ in range(30)]  # the kernel takes them
            assert await answers(*first)
            assert await answers(*await through(tmp_path / "2"))
            assert crowd.count_of("1") <= 3
            late = asyncio.create_task(answers(*idle[-1]))
            for _, writer in [first, *idle[:-1]]:
                writer.close()
            assert await late

    run(test)


def test_paces_are_overdrawn_in_turn() -> None:
    pace = Pace(per_second=10, at_once=2)
    waits = [round(pace.take(), 1) for _ in range(5)]
    assert waits == [0, 0, 0.1, 0.2, 0.3]


@pytest.mark.parametrize("text", ["*", "10.0.0.0/33", "localhost", "10.0.0.1/8"])
def test_proxies_are_trusted_by_address_only(text: str) -> None:
    with pytest.raises(ValueError):
        trusted_proxies(text)


def test_no_proxy_is_trusted_unless_it_is_named() -> None:
    assert trusted_proxies("") == []
    assert trusted_proxies("127.0.0.1, 10.0.0.0/8,::1") == ["127.0.0.1/32", "10.0.0.0/8", "::1/128"]
