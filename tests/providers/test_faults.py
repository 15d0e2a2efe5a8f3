"""Faults of providers: kinds, words, and never a key."""

from __future__ import annotations

from typing import Any

import pytest

from djinn.providers.faults import Fault, Place, error_object, fault_of, scrubbed, told
from djinn.providers.models import ModelCall

KEY = "sk-proj-0123456789abcdef"
OPENAI = Place("OpenAI", "OPENAI_API_KEY", "DJINN_PROVIDER_OPENAI_URL")
ANSWERS: list[tuple[int, dict[str, Any], Fault]] = [
    (401, {}, Fault.KEY_REFUSED),
    (400, {"message": "API key not valid.", "status": "INVALID_ARGUMENT"}, Fault.KEY_REFUSED),
    (403, {"message": "country not supported"}, Fault.KEY_REFUSED),
    (404, {"code": "model_not_found"}, Fault.UNKNOWN_MODEL),
    (402, {"message": "Insufficient Balance"}, Fault.NO_CREDIT),
    (429, {"code": "insufficient_quota"}, Fault.NO_CREDIT),
    (429, {"code": "rate_limit_exceeded"}, Fault.RATE_LIMITED),
    (400, {"code": "context_length_exceeded"}, Fault.TOO_LONG),
    (400, {"message": "prompt is too long: 210000 tokens > 200000 maximum"}, Fault.TOO_LONG),
    (400, {"message": "bad tool"}, Fault.REFUSED),
    (422, {}, Fault.REFUSED),
    (503, {}, Fault.OVERLOADED),
    (529, {"type": "overloaded_error"}, Fault.OVERLOADED),
    (500, {}, Fault.SERVER_ERROR),
    (502, {}, Fault.SERVER_ERROR),
    (504, {}, Fault.TIMED_OUT),
    (301, {}, Fault.REFUSED),
]  # fmt: skip


@pytest.mark.parametrize(("status", "error", "fault"), ANSWERS)
def test_an_answer_is_of_one_kind(status: int, error: dict[str, Any], fault: Fault) -> None:
    assert fault_of(status, error) is fault


def test_every_kind_has_words_and_fits_its_column() -> None:
    longest = ModelCall._meta.get_field("fault").max_length
    for fault in set(Fault) - {Fault.BUDGET, Fault.GAVE_UP}:
        words = told(fault, OPENAI, model="gpt-9", status=418)
        assert words.message.startswith(("OpenAI", "The conversation"))
        assert "(418)" in words.failure
        assert len(fault) <= longest


def test_a_refused_key_says_what_to_do() -> None:
    words = "OpenAI refused the key (401). Set OPENAI_API_KEY and restart the run."
    assert told(Fault.KEY_REFUSED, OPENAI, model="gpt-9", status=401, words="anything").message == words


@pytest.mark.parametrize(
    "words",
    [f"Incorrect key: {KEY}.", "bad sk-proj-****cdef", "Bearer abc.def-ghi", "AIzaSyD-abcdefgh123", f"x{KEY}y"],
)  # fmt: skip
def test_no_key_is_repeated_whole_or_masked(words: str) -> None:
    said = scrubbed(words, KEY)
    assert not any(part in said for part in (KEY, "cdef", "def-ghi", "SyD-"))


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('{"error": {"message": "m"}}', {"message": "m"}),
        ('[{"error": {"message": "m"}}]', {"message": "m"}),
        ('{"error": "m"}', {"message": "m"}),
        ('{"message": "m", "type": "t"}', {"message": "m", "type": "t"}),
        (f"<html>{KEY}</html>", {}),
        ("[" * 100_000, {}),
        ("5", {}),
    ],
    ids=lambda value: str(value)[:20],
)
def test_the_error_of_a_body_is_found_and_other_text_is_not_repeated(text: str, error: dict[str, Any]) -> None:
    assert error_object(text) == error
