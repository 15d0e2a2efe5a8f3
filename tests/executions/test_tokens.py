"""A container's token opens the gateway for its own execution, until that has ended."""

from __future__ import annotations

from typing import Any

import pytest

from djinn.executions.lease import DatabaseClock
from djinn.executions.models import Execution
from djinn.executions.tokens import open_execution_of, token_of
from tests.make import make_execution

pytestmark = pytest.mark.django_db


def test_a_token_opens_its_own_execution() -> None:
    mine, _ = make_execution(), make_execution()
    assert open_execution_of(token_of(mine.pk)) == mine


@pytest.mark.parametrize("status", ["exited", "killed", "lost"])
def test_a_token_dies_with_its_execution(status: str) -> None:
    execution = make_execution()
    Execution.objects.filter(pk=execution.pk).update(status=status, ended_at=DatabaseClock())
    assert open_execution_of(token_of(execution.pk)) is None


def test_a_token_is_not_valid_for_another_execution() -> None:
    mine, other = make_execution(), make_execution()
    signature = token_of(mine.pk).partition(".")[2]
    assert open_execution_of(f"{other.pk}.{signature}") is None


def test_a_token_of_another_installation_opens_nothing(settings: Any) -> None:
    execution = make_execution()
    token = token_of(execution.pk)
    settings.SECRET_KEY = "another installation's"
    assert open_execution_of(token) is None


@pytest.mark.parametrize(
    "token",
    ["", ".", "1", "1.", ".x", "-1.x", "1.2.3", "٣.x", "x.y", "1" * 30 + ".x", "1.\x00", "1.\udc80", "1.é", " 1.x"],
)
def test_what_is_no_token_opens_nothing(token: str) -> None:
    make_execution(pk=1)
    assert open_execution_of(token) is None


def test_the_token_is_in_no_column() -> None:
    execution = make_execution()
    secret = token_of(execution.pk).partition(".")[2]
    assert secret not in str(Execution.objects.filter(pk=execution.pk).values().get())
