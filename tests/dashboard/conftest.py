"""People, and browsers that they are logged in with."""

from __future__ import annotations

from pathlib import Path

import pytest
from django.test import Client
from pytest_django import Settings

from djinn.accounts.models import Role, User
from tests.dashboard.make import Browser, make_user


@pytest.fixture
def browse() -> Browser:
    """A client of the person; of nobody for None."""

    def logged_in(user: User | None) -> Client:
        client = Client()
        if user is not None:
            client.force_login(user)
        return client

    return logged_in


@pytest.fixture
def operator(db: None) -> User:
    return make_user("olga", Role.OPERATOR)


@pytest.fixture
def viewer(db: None) -> User:
    return make_user("vera", Role.VIEWER)


@pytest.fixture
def outsider(db: None) -> User:
    return make_user("otto", Role.NONE)


@pytest.fixture
def pipelines(tmp_path: Path, settings: Settings) -> Path:
    """An empty folder that the installation takes its pipelines from."""
    settings.PIPELINES_DIRECTORY = tmp_path
    return tmp_path
