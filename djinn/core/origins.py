"""Which pages may open a WebSocket to us, and send us forms: exactly ours, by scheme, host and port.

RFC 6454, section 6: an origin is a scheme, a host and a port, and nothing else. A browser leaves the scheme's own port
out and writes the host in lower case.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.http.request import validate_host

from djinn.core.body import Application, Receive, Scope, Send

_ORIGIN = re.compile(r"(https?)://([a-z0-9._-]+|\[[0-9a-f:.]+\])(?::([0-9]{1,5}))?", re.IGNORECASE)
_OWN_PORTS = {"http": 80, "https": 443}
_PAGES = {"ws": "http", "wss": "https"}
REFUSED = 4403


@dataclass(frozen=True)
class Origin:
    """A scheme, a host and a port."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        """As a browser writes it."""
        return f"{self.scheme}://{self.host}" + ("" if self.port == _OWN_PORTS[self.scheme] else f":{self.port}")


def read_origin(text: str) -> Origin | None:
    """The origin that the text is, None when it is none or anything more: a name before an @, a path, a wildcard."""
    found = _ORIGIN.fullmatch(text)
    if found is None:
        return None
    scheme = found[1].lower()
    port = int(found[3]) if found[3] else _OWN_PORTS[scheme]
    return Origin(scheme, found[2].lower(), port) if 0 < port < 65536 else None


def trusted_origins(texts: Iterable[str]) -> list[str]:
    """The origins as browsers write them; raises `ImproperlyConfigured` for what is none."""
    origins = []
    for text in texts:
        origin = read_origin(text)
        if origin is None:
            raise ImproperlyConfigured(
                f"DJINN_TRUSTED_ORIGINS: {text!r} is not an origin. Write scheme, host and port, for example "
                "https://djinn.example.org or https://djinn.example.org:8443."
            )
        origins.append(str(origin))
    return origins


def of_our_origin(application: Application) -> Application:
    """The WebSocket application for our own pages and those of trusted origins; others are refused the handshake."""

    async def checked(scope: Scope, receive: Receive, send: Send) -> None:
        if is_our_origin(scope):
            await application(scope, receive, send)
        else:
            await receive()
            await send({"type": "websocket.close", "code": REFUSED})

    return checked


def is_our_origin(scope: Scope) -> bool:
    """Whether the handshake, which must name one origin, comes from a page of the same one or of a trusted one."""
    headers = {
        name: [value.decode("latin-1") for key, value in scope["headers"] if key == name]
        for name in (b"origin", b"host")
    }
    if [len(values) for values in headers.values()] != [1, 1]:
        return False
    origin, host = read_origin(headers[b"origin"][0]), headers[b"host"][0]
    if origin is None:
        return False
    scheme = "https" if settings.SESSION_COOKIE_SECURE else _PAGES[scope.get("scheme", "ws")]
    own = read_origin(f"{scheme}://{host}")
    is_own = origin == own and validate_host(origin.host, settings.ALLOWED_HOSTS)
    return is_own or str(origin) in settings.CSRF_TRUSTED_ORIGINS
