"""What `manage.py check` refuses, and what a load balancer is told."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from django.core.checks import run_checks
from django.test import Client
from pytest_django import Settings

from djinn.core.checks import broker_keeps_its_messages, leases_fit_together
from tests.core.serving import serving


def _ids(databases: list[str] | None = None) -> list[str | None]:
    return [message.id for message in run_checks(databases=databases)]


def test_the_present_configuration_passes() -> None:
    assert _ids(["default"]) == []


def test_a_check_for_deployment_tells_how_disk_limits_are_kept() -> None:
    found = {message.id: message.msg for message in run_checks(include_deployment_checks=True)}
    assert "by: watch; limit: 5 GiB, 500,000 files; reserve: 2 GiB" in found["djinn.I001"]


@pytest.mark.parametrize("url", ["unix:///nowhere/redis.sock", "redis://127.0.0.1:1/0", "http://redis", "nonsense"])
def test_a_redis_that_cannot_be_asked_is_an_error(settings: Settings, url: str) -> None:
    settings.REDIS_URL = url
    assert _ids(["default"]) == ["djinn.E001"]


@pytest.fixture
def evicting() -> Iterator[None]:
    """The tests' Redis with a policy that evicts."""
    with redis.Redis.from_url(os.environ["REDIS_URL"], socket_timeout=5) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        yield
        client.config_set("maxmemory-policy", "noeviction")


@pytest.mark.usefixtures("evicting")
@pytest.mark.xdist_group("evicting")
def test_a_redis_that_evicts_is_an_error_with_its_policy() -> None:
    (message,) = broker_keeps_its_messages(None, ["default"])
    assert (message.id, "allkeys-lru" in message.msg) == ("djinn.E002", True)


def test_redis_is_not_asked_when_no_database_is(settings: Settings) -> None:
    settings.REDIS_URL = "nonsense"
    assert _ids() == []


@pytest.mark.parametrize(("renew", "ids"), [(1.0, []), (1.875, []), (1.9, ["djinn.E003"]), (5.0, ["djinn.E003"])])
def test_a_lease_must_be_renewable_twice(settings: Settings, renew: float, ids: list[str]) -> None:
    settings.LEASE_SECONDS, settings.LEASE_MARGIN_SECONDS, settings.LEASE_RENEW_SECONDS = 5.0, 1.25, renew
    assert [message.id for message in leases_fit_together(None)] == ids


def test_a_process_that_answers_says_so(client: Client) -> None:
    assert client.get("/healthz").content == b"ok"


@pytest.mark.django_db
def test_a_process_whose_database_is_away_is_not_ready_but_alive(tmp_path: Path) -> None:
    away = f"postgresql://postgres:@/djinn?host={tmp_path}"
    with serving("djinn.asgi", tmp_path, DATABASE_URL=away) as web:
        assert (web.get("/readyz").status_code, web.get("/healthz").status_code) == (503, 200)
