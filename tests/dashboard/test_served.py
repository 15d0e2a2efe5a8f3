"""The web process as it is served: what it refuses before Django, and whose address it believes."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from djinn.accounts.models import Brake, Role, User
from tests.dashboard.chromium import WebProcess
from tests.dashboard.make import Browser, make_run

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.xdist_group("web")]


@contextmanager
def talking(web: WebProcess) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", web.port), timeout=30) as opened:
        yield opened


def said(opened: socket.socket) -> bytes:
    """All that the server says until it closes."""
    text = b""
    try:
        while part := opened.recv(65536):
            text += part
    except ConnectionError:
        pass
    return text


def handshake(web: WebProcess, path: str, **headers: str) -> bytes:
    lines = {"host": f"127.0.0.1:{web.port}", "origin": web.url, "upgrade": "websocket", "connection": "Upgrade",
             "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==", "sec-websocket-version": "13", **headers}  # fmt: skip
    with talking(web) as opened:
        head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        opened.sendall(f"GET {path} HTTP/1.1\r\n{head}\r\n".encode())
        return opened.recv(65536).partition(b"\r\n")[0]


def test_a_header_without_an_end_is_refused_and_others_are_answered(web: WebProcess) -> None:
    with talking(web) as opened:
        try:
            opened.sendall(b"GET / HTTP/1.1\r\nx: ")
            for _ in range(100):
                opened.sendall(b"x" * 1024**2)
        except ConnectionError:
            pass  # long before the last one
        else:
            pytest.fail("100 MB of a header were taken")
    assert httpx2.get(f"{web.url}/healthz", timeout=30).status_code == 200
    with talking(web) as opened:
        opened.sendall(b"GET / HTTP/1.1\r\nx: " + b"x" * 60_000)
        assert said(opened).startswith(b"HTTP/1.1 431 ")


def test_sockets_open_for_our_pages_and_nowhere_else(
    web: WebProcess, browse: Browser, viewer: User, tmp_path: Path
) -> None:
    run = make_run(User.objects.create_user("olga", role=Role.OPERATOR))
    cookie = f"sessionid={browse(viewer).cookies['sessionid'].value}"
    path = f"/ws/runs/{run.pk}/"
    assert handshake(web, path, cookie=cookie) == b"HTTP/1.1 101 Switching Protocols"
    wrong = [
        handshake(web, "/ws/nowhere/", cookie=cookie),
        handshake(web, path, cookie=cookie, origin="http://127.0.0.1:1"),
        handshake(web, path, cookie=cookie, origin=f"http://somebody@127.0.0.1:{web.port}"),
        handshake(web, path, cookie=cookie, origin=f"https://127.0.0.1:{web.port}"),
    ]
    assert {answer.split()[1] for answer in wrong} == {b"403"}
    assert not re.search("Traceback|No route found", (tmp_path / "web.log").read_text())


@pytest.mark.parametrize(
    ("trusted", "forwarded", "network"),
    [
        ("", "203.0.113.9", "127.0.0.0/24"),
        ("10.0.0.0/8", "203.0.113.9", "127.0.0.0/24"),
        ("127.0.0.1", "203.0.113.9", "203.0.113.0/24"),
        ("127.0.0.1", "198.51.100.1, 203.0.113.9", "203.0.113.0/24"),
        ("127.0.0.1,203.0.113.0/24", "198.51.100.1, 203.0.113.9", "198.51.100.0/24"),
        ("127.0.0.1", "nonsense", "unknown"),
    ],
)
def test_only_a_trusted_proxy_tells_whose_request_it_is(
    transactional_db: None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    trusted: str,
    forwarded: str,
    network: str,
) -> None:
    monkeypatch.setenv("DJINN_TRUSTED_PROXIES", trusted)
    web = WebProcess(tmp_path / "web.log")
    try:
        headers = {"Authorization": "Bearer djinn_none", "X-Forwarded-For": forwarded}
        assert httpx2.get(f"{web.url}/api/v1/runs/", headers=headers, timeout=30).status_code == 401
    finally:
        web.stop()
    assert Brake.objects.get().subject == f"token:{network}"
