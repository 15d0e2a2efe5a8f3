"""People, their clients, and a pipeline that can be started."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pytest_django import Settings
from rest_framework.test import APIClient

from djinn.accounts.models import Role, User
from djinn.accounts.services import create_token
from djinn.runs.models import Schedule
from djinn.runs.schedules import Wanted, create_schedule

PIPELINE = """\
name: Echo
inputs:
  word: {type: string, required: true}
  times: {type: integer, default: 1}
steps:
  - id: SAY
    run: echo "{{ word }}"
"""
Api = Callable[[str], APIClient]


@pytest.fixture
def people(db: None) -> dict[str, User]:
    """One person of each role; their names are the roles'."""
    make = User.objects.create_user
    made = {role.value: make(role.value, role=role) for role in Role}
    made["admin"].is_staff = made["admin"].is_superuser = True
    made["admin"].save()
    return made


@pytest.fixture
def api(people: dict[str, User]) -> Api:
    """A client with the token of the person with that role; of nobody for "nobody"."""

    def client(role: str) -> APIClient:
        made = APIClient(raise_request_exception=False)
        if role != "nobody":
            _, key = create_token(user=people[role], name="test")
            made.credentials(HTTP_AUTHORIZATION=f"Bearer {key}")
        return made

    return client


def make_schedule(user: User) -> Schedule:
    """A daily schedule of the pipeline `echo`."""
    wanted = Wanted(name="daily", pipeline="echo", cron="0 6 * * *", inputs={"word": "hello"})
    return create_schedule(user=user, wanted=wanted)


@pytest.fixture
def pipelines(tmp_path: Path, settings: Settings) -> Path:
    """A folder with the pipelines `echo`, which can be started, and `broken`, which cannot."""
    (tmp_path / "echo.yaml").write_text(PIPELINE)
    (tmp_path / "broken.yaml").write_text("name: Broken\nsteps:\n  - id: A\n    rum: true\n")
    settings.PIPELINES_DIRECTORY = tmp_path
    return tmp_path
