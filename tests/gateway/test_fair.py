"""One container asks for too much, another one is answered: the gateway's real process, a door for each of them."""

from __future__ import annotations

import itertools
import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest

from djinn.executions.models import Execution
from djinn.executions.tokens import token_of
from djinn.gateway.fair import LARGE_AT_ONCE
from tests.core.serving import serving
from tests.gateway.provider_double import KEY, ProviderDouble, provider_double

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.xdist_group("gateway")]

CHAT = "/v1/chat/completions"
MEGABYTE = 1024 * 1024
_names = itertools.count(1)


@pytest.fixture(scope="module")
def provider() -> Iterator[ProviderDouble]:
    with provider_double() as double:
        yield double


@pytest.fixture(scope="module")
def doors(django_db_setup: None, provider: ProviderDouble, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("g")
    variables = {"DJINN_PROVIDER_DOUBLE_URL": provider.url, "DJINN_PROVIDER_DOUBLE_KEY": KEY}
    with serving("djinn.gateway.asgi", folder, **variables):
        yield folder / "doors"


class Container:
    """An execution, and the way to the gateway that its container has."""

    def __init__(self, doors: Path) -> None:
        door = doors / f"door-{next(_names)}"
        door.mkdir()
        self.path = str(door / "gateway.sock")
        while not Path(self.path).exists():  # the test's own time limit ends this
            time.sleep(0.01)
        execution = Execution.objects.create(
            stream="test", image="none", timeout_seconds=60, model="double/good", agent="ada", step="ASK"
        )
        self.headers = {"Authorization": f"Bearer {token_of(execution.pk)}"}

    def ask(self, content: bytes | None = None) -> httpx2.Response:
        """One call over a connection of its own."""
        body = content or json.dumps({"model": "double/good", "messages": [{"role": "user", "content": "Hi"}]}).encode()
        with httpx2.Client(transport=httpx2.HTTPTransport(uds=self.path), timeout=60) as client:
            return client.post("http://gateway" + CHAT, content=body, headers=self.headers)

    def connect(self) -> socket.socket:
        """A connection that says nothing yet."""
        opened = socket.socket(socket.AF_UNIX)
        opened.settimeout(30)
        opened.connect(self.path)
        return opened


@pytest.fixture
def greedy(doors: Path) -> Container:
    one = Container(doors)
    assert one.ask().status_code == 200
    return one


@pytest.fixture
def other(doors: Path) -> Container:
    return Container(doors)


def large(megabytes: float) -> bytes:
    """A body with so long a text."""
    text = "x" * int(megabytes * MEGABYTE)
    return json.dumps({"model": "double/good", "messages": [{"role": "user", "content": text}]}).encode()


def test_idle_connections_keep_nobody_else_out(greedy: Container, other: Container) -> None:
    with ExitStack() as stack:
        kept = 0
        for _ in range(1000):
            opened = stack.enter_context(socket.socket(socket.AF_UNIX))
            opened.setblocking(False)
            try:
                opened.connect(greedy.path)
                kept += 1
            except BlockingIOError:
                break  # the queue of its own door is full
        assert kept < 300
        assert other.ask().status_code == 200
    assert greedy.ask().status_code == 200


def test_many_large_bodies_at_once_are_read_in_turn(greedy: Container, other: Container) -> None:
    with ThreadPoolExecutor(12) as threads:
        asked = [threads.submit(greedy.ask, large(3)) for _ in range(12)]
        assert other.ask().status_code == 200
        assert not all(one.done() for one in asked)
        assert {one.result().status_code for one in asked} == {200}


def test_bodies_that_do_not_arrive_keep_only_their_own_places(greedy: Container, other: Container) -> None:
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: {greedy.headers['Authorization']}\r\n"
    with ExitStack() as stack:
        for _ in range(LARGE_AT_ONCE):
            opened = stack.enter_context(greedy.connect())
            opened.sendall(f"{head}content-length: {10 * MEGABYTE}\r\n\r\n".encode() + b"{" * 1000)
        assert other.ask(large(3)).status_code == 200
        assert greedy.ask().status_code == 200  # what is small needs no place
        late = greedy.ask(large(3))
    assert (late.status_code, late.headers["Retry-After"], late.json()["error"]["code"]) == (429, "5", "busy")


@pytest.mark.parametrize(
    "messages",
    [b"1," * 6_000_000 + b"1", b"[]," * 300_000 + b"1", b'"",' * 300_000 + b"1", b'{"\\\\":"\\""},' * 60_000 + b"1"],
    ids=["numbers", "lists", "texts", "escapes"],
)
def test_a_body_of_countless_values_is_not_parsed(greedy: Container, messages: bytes) -> None:
    answer = greedy.ask(b'{"model": "double/good", "messages": [' + messages + b"]}")
    assert (answer.status_code, "values" in answer.json()["error"]["message"]) == (400, True)


@pytest.mark.parametrize("text", ['a,"b",[c]{d}:' * 100_000, "\\" * 200_001 + '"' * 200_001, "é漢😀" * 200_000])
def test_what_stands_in_a_text_is_no_value(greedy: Container, text: str) -> None:
    message: dict[str, Any] = {"role": "user", "content": text}
    for body in (
        json.dumps({"model": "double/good", "messages": [message]}),
        json.dumps({"model": "double/good", "messages": [message]}, ensure_ascii=False),
    ):
        assert greedy.ask(body.encode()).status_code == 200


def test_requests_are_paced_and_all_answered(greedy: Container, other: Container) -> None:
    with ThreadPoolExecutor(8) as threads:
        many = [threads.submit(greedy.ask, b"{}") for _ in range(100)]
        assert other.ask().status_code == 200
        assert {one.result().status_code for one in many} == {400}


def test_a_head_that_is_too_large_is_refused(greedy: Container) -> None:
    with greedy.connect() as opened:
        opened.sendall(b"GET / HTTP/1.1\r\nx: " + b"x" * 100_000)
        assert opened.recv(100).startswith(b"HTTP/1.1 431 ")
