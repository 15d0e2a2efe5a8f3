"""The tree of errors and what each is over HTTP."""

from __future__ import annotations

import pytest

from djinn.agents.definition import AgentInvalid
from djinn.api.errors import error_response
from djinn.core.errors import AppError, Conflict, DjinnError, Forbidden, NotFound, OutsideError, UserError
from djinn.documents.problems import Problem
from djinn.providers.base import ProviderError
from djinn.providers.faults import Fault, Told


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (UserError("Mend it."), 400, "invalid"),
        (AgentInvalid(Problem("a", 1, "Mend it.")), 400, "invalid"),
        (Forbidden("Mend it."), 403, "forbidden"),
        (NotFound("Mend it."), 404, "not_found"),
        (Conflict("Mend it."), 409, "conflict"),
    ],
)
def test_a_users_error_is_told_to_them(error: UserError, status: int, code: str) -> None:
    answer = error_response(error, {})
    assert (answer.status_code, answer.data) == (
        status,
        {"error": {"code": code, "message": error.message, "details": {}}},
    )
    assert error.message.endswith("Mend it.")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (AppError("the password is tiger"), 500),
        (OutsideError("the password is tiger", permanent=True), 502),
        (ProviderError(Told(Fault.BROKE_OFF, "broke off", "the password is tiger")), 502),
        (RuntimeError("the password is tiger"), 500),
    ],
)
def test_an_error_of_ours_is_a_reference_and_its_text_is_for_the_log(error: Exception, status: int) -> None:
    answers = [error_response(error, {}) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [status, status]
    assert "tiger" not in str(answers[0].data)
    assert answers[0].data["error"]["reference"] != answers[1].data["error"]["reference"]


def test_details_are_by_field() -> None:
    answer = error_response(UserError("No.", details={"word": "is missing"}), {})
    assert answer.data["error"]["details"] == {"word": "is missing"}


@pytest.mark.parametrize("kind", [UserError, NotFound, Forbidden, Conflict, AppError, OutsideError])
def test_every_error_is_one_of_djinns(kind: type[Exception]) -> None:
    assert issubclass(kind, DjinnError)
    assert issubclass(kind, UserError) != issubclass(kind, AppError)
