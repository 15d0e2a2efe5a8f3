"""People, and browsers that they are logged in with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import playwright.sync_api
import pytest
from django.db import connection
from django.test import Client
from pytest_django import Settings

from djinn.accounts.models import Role, User
from tests import needs
from tests.dashboard.chromium import FLAGS, WebProcess
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


@pytest.fixture
def web(tmp_path: Path, transactional_db: None) -> Iterator[WebProcess]:
    process = WebProcess(tmp_path / "web.log")
    yield process
    process.stop()


@pytest.fixture
def chromium(monkeypatch: pytest.MonkeyPatch) -> Iterator[playwright.sync_api.Browser]:
    # Playwright's loop runs in this thread while its calls wait; Django takes that for an async caller.
    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
    program = needs.browser()
    with playwright.sync_api.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=program, args=FLAGS)
        yield browser
        connection.close()  # the one that belongs to Playwright's loop: the test's teardown has another
        browser.close()
