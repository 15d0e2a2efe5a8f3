"""Which origins are ours."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from pytest_django import Settings

from djinn.core.origins import is_our_origin, of_our_origin, read_origin, trusted_origins

WRITTEN = {
    "https://djinn.example.org": "https://djinn.example.org",
    "HTTPS://Djinn.Example.Org": "https://djinn.example.org",
    "https://djinn.example.org:443": "https://djinn.example.org",
    "http://djinn.example.org:80": "http://djinn.example.org",
    "http://djinn.example.org:443": "http://djinn.example.org:443",
    "https://djinn.example.org:8443": "https://djinn.example.org:8443",
    "http://127.0.0.1:8000": "http://127.0.0.1:8000",
    "http://[::1]:8000": "http://[::1]:8000",
}


@pytest.mark.parametrize(("text", "written"), WRITTEN.items())
def test_an_origin_is_written_as_browsers_write_it(text: str, written: str) -> None:
    assert str(read_origin(text)) == written


NONE = [
    "", "null", "djinn.example.org", "//djinn.example.org", "ftp://djinn.example.org", "https://", "https://:8000",
    "https://djinn.example.org/", "https://djinn.example.org/path", "https://djinn.example.org?a", "https://djinn.example.org#a",
    "https://somebody@djinn.example.org", "https://djinn.example.org@evil.example", "https://a:b@djinn.example.org",
    "https://*.example.org", "https://.example.org:x", "https://djinn.example.org:0", "https://djinn.example.org:65536",
    "https://djinn.example.org:", "https://djinn.example.org:443:443", " https://djinn.example.org",
    "https://djinn.example.org\n", "https://djinn.example.org, https://evil.example", "https://djinn.example.org\\@evil",
]  # fmt: skip


@pytest.mark.parametrize("text", NONE)
def test_anything_else_is_none(text: str) -> None:
    assert read_origin(text) is None
    with pytest.raises(ImproperlyConfigured, match="is not an origin"):
        trusted_origins([text])


def scope(origin: str | list[str] | None, host: str = "djinn.example.org", scheme: str = "ws") -> dict[str, Any]:
    origins = [] if origin is None else [origin] if isinstance(origin, str) else origin
    headers = [(b"host", host.encode()), *((b"origin", one.encode()) for one in origins)]
    return {"type": "websocket", "scheme": scheme, "headers": headers}


@pytest.fixture(autouse=True)
def _hosts(settings: Settings) -> None:
    settings.ALLOWED_HOSTS = ["djinn.example.org", ".wild.example", "[::1]"]
    settings.CSRF_TRUSTED_ORIGINS = ["https://trusted.example:8443"]


HANDSHAKES = [
    (scope("http://djinn.example.org"), True),
    (scope("http://djinn.example.org:80"), True),
    (scope("http://djinn.example.org:8000", "djinn.example.org:8000"), True),
    (scope("https://djinn.example.org", scheme="wss"), True),
    (scope("http://a.wild.example", "a.wild.example"), True),
    (scope("http://[::1]:8000", "[::1]:8000"), True),
    (scope("https://trusted.example:8443"), True),
    (scope(None), False),
    (scope("null"), False),
    (scope("https://djinn.example.org"), False),
    (scope("http://djinn.example.org", scheme="wss"), False),
    (scope("http://djinn.example.org:8001", "djinn.example.org:8000"), False),
    (scope("http://djinn.example.org", "djinn.example.org:8000"), False),
    (scope("http://djinn.example.org:8000"), False),
    (scope("http://b.wild.example", "a.wild.example"), False),
    (scope("http://evil.example"), False),
    (scope("http://evil.example", "evil.example"), False),
    (scope("http://djinn.example.org@evil.example"), False),
    (scope("http://evil.example@djinn.example.org"), False),
    (scope("http://djinn.example.org.evil.example"), False),
    (scope("https://trusted.example"), False),
    (scope("http://trusted.example:8443"), False),
    (scope("https://sub.trusted.example:8443"), False),
    (scope(["http://djinn.example.org", "http://evil.example"]), False),
]


@pytest.mark.parametrize(("handshake", "is_ours"), HANDSHAKES, ids=[str(one["headers"]) for one, _ in HANDSHAKES])
def test_a_handshake_comes_from_exactly_our_origin(handshake: dict[str, Any], is_ours: bool) -> None:
    assert is_our_origin(handshake) is is_ours


def test_with_https_the_page_is_one_of_https_whatever_the_proxy_speaks_to_us(settings: Settings) -> None:
    settings.SESSION_COOKIE_SECURE = True
    assert is_our_origin(scope("https://djinn.example.org"))
    assert not is_our_origin(scope("http://djinn.example.org"))


@pytest.mark.parametrize(
    ("origin", "sent"), [("http://djinn.example.org", []), ("http://evil.example", ["websocket.close"])]
)
def test_another_origin_is_refused_the_handshake(origin: str, sent: list[str]) -> None:
    asked: list[str] = []
    answers: list[str] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        asked.append(origin)

    async def receive() -> dict[str, str]:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        answers.append(message["type"])

    asyncio.run(of_our_origin(application)(scope(origin), receive, send))
    assert (answers, bool(asked)) == (sent, not sent)
