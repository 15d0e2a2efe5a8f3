"""Checks that refuse a bad configuration at start: `manage.py check`, and every process of `manage.py up`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis
from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, register

from djinn.core import faults

EVICTION_REFUSED = "noeviction"


@register(Tags.database)
def broker_keeps_its_messages(app_configs: Any, databases: Sequence[str] | None, **kwargs: Any) -> list[CheckMessage]:
    """Redis must refuse writes when it is full: any other policy evicts whole queues without an error anywhere."""
    if not databases:
        return []
    try:
        client = redis.Redis.from_url(settings.REDIS_URL, socket_timeout=3, socket_connect_timeout=3)
    except ValueError as exc:
        return [Error(f"REDIS_URL cannot be used: {exc}", id="djinn.E001")]
    try:
        policy = str(client.info("memory")["maxmemory_policy"])
    except redis.RedisError as exc:
        return [Error(f"Redis does not answer: {exc}", id="djinn.E001")]
    finally:
        client.close()
    if policy == EVICTION_REFUSED:
        return []
    return [Error(f"Redis has maxmemory-policy {policy}", hint=f"Set it to {EVICTION_REFUSED}.", id="djinn.E002")]


@register
def leases_fit_together(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """A lease must be renewed at least twice before its holder has to let go by its own clock."""
    usable = settings.LEASE_SECONDS - settings.LEASE_MARGIN_SECONDS
    if usable >= 2 * settings.LEASE_RENEW_SECONDS:
        return []
    return [Error(f"LEASE_SECONDS {settings.LEASE_SECONDS} leaves no time to renew a lease twice", id="djinn.E003")]


@register
def crash_points_exist(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """Faults that are asked for by a wrong name would never be injected, and their test would prove nothing."""
    return [Error(f"{faults.VARIABLE}: {problem}", id="djinn.E004") for problem in faults.PROBLEMS]
