"""Clients that are kept, and the lists of providers that have to agree."""

from __future__ import annotations

import asyncio

import httpx2

from djinn.providers.catalogue import KNOWN, LABELS
from djinn.providers.clients import client_of
from djinn.providers.dialects import KNOWN as WITH_DIALECT
from djinn.providers.usage import _IN_TABLE


def test_a_client_is_kept_for_its_provider_and_closed_with_its_loop() -> None:
    async def take() -> list[httpx2.AsyncClient]:
        clients = [await client_of(name) for name in ("a", "a", "b")]
        assert not any(client.is_closed for client in clients)
        return clients

    first, again, other = asyncio.run(take())
    assert (first is again, first is other) == (True, False)
    assert (first.is_closed, other.is_closed) == (True, True)
    assert asyncio.run(take())[0] is not first


def test_every_known_provider_has_a_label_a_dialect_and_prices() -> None:
    assert set(KNOWN) == set(LABELS) == set(_IN_TABLE) == WITH_DIALECT - {"scripted"}
