"""HTTP clients that are kept: one a provider and event loop, with a bound on its connections."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from http.cookiejar import CookieJar, DefaultCookiePolicy
from weakref import WeakKeyDictionary

import httpx2

MOST_CONNECTIONS = 500
MOST_IDLE = 50
IDLE_SECONDS = 20.0
"""Less than any provider waits: a connection that they are about to close is not used again."""
CONNECT_SECONDS, WRITE_SECONDS, POOL_SECONDS = 10.0, 60.0, 10.0

_Holders = dict[str, tuple[httpx2.AsyncClient, AsyncGenerator[httpx2.AsyncClient]]]
_of_loop: WeakKeyDictionary[asyncio.AbstractEventLoop, _Holders] = WeakKeyDictionary()


async def client_of(provider: str) -> httpx2.AsyncClient:
    """The provider's client in the running loop, made at its first call and closed with the loop.

    It is held by an asynchronous generator, which the loop closes when it shuts down: no server has to know of it.
    """
    holders = _of_loop.setdefault(asyncio.get_running_loop(), {})
    if provider not in holders:
        holder = _held()
        holders[provider] = (await anext(holder), holder)
    return holders[provider][0]


async def _held() -> AsyncGenerator[httpx2.AsyncClient]:
    limits = httpx2.Limits(
        max_connections=MOST_CONNECTIONS, max_keepalive_connections=MOST_IDLE, keepalive_expiry=IDLE_SECONDS
    )
    no_cookies = CookieJar(policy=DefaultCookiePolicy(allowed_domains=[]))
    timeout = httpx2.Timeout(CONNECT_SECONDS)
    async with httpx2.AsyncClient(limits=limits, timeout=timeout, follow_redirects=False, cookies=no_cookies) as client:
        yield client
