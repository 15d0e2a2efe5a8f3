"""Models that nobody can be asked for are refused when a run starts, not after a container."""

from __future__ import annotations

from typing import Any

import pytest

from djinn.core.errors import UserError
from djinn.runs.models import Run
from djinn.runs.services import start_run
from tests.make import begin, told, write_pipeline

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("home")]


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenAI has a key, nobody else has."""
    monkeypatch.delenv("XAI_API_KEY", raising=False)
    monkeypatch.setenv("DJINN_PROVIDERS_WITH_KEYS", "openai")


def ask(model: str, **keys: Any) -> dict[str, Any]:
    return {"id": "ASK", "agent": "analyst", "input": "Look.", "model": model, **keys}


WRONG = [
    ("xai/grok-4.3", "Step ASK of work: xAI has no key: set XAI_API_KEY"),
    ("nobody/x", "Step ASK of work: There is no provider 'nobody'"),
    ("gpt-5", "Step ASK of work: 'gpt-5' is no model: write provider/model"),
    ("scripted/../x", "Step ASK of work: There is no script"),
]


@pytest.mark.parametrize(("model", "words"), WRONG)
def test_a_model_that_cannot_be_asked_is_refused_at_the_start(model: str, words: str) -> None:
    write_pipeline({"id": "ASK", "agent": "analyst", "input": "Look.", "model": "openai/gpt-5"})
    with pytest.raises(UserError) as raised:
        start_run(pipeline_id="work", inputs={}, model=model)
    assert words in raised.value.message
    assert (set(raised.value.details), Run.objects.count()) == ({"model"}, 0)


def test_a_script_that_is_not_there_is_refused_at_the_start() -> None:
    write_pipeline(ask("openai/gpt-5"))
    with pytest.raises(UserError, match="There is no script 'gone'"):
        start_run(pipeline_id="work", inputs={}, model="scripted/gone")


def test_a_model_of_a_pipeline_that_is_used_counts_as_well() -> None:
    write_pipeline(ask("xai/grok-4.3"), name="inner")
    with pytest.raises(UserError, match="Step ASK of inner: xAI has no key"):
        begin({"id": "USE", "uses": "inner"})


def test_a_price_that_is_unknown_is_a_notice_and_under_a_budget_in_dollars_an_error() -> None:
    run = begin(ask("openai/gpt-of-tomorrow"))
    ((_, notice),) = told(run, "notice")
    assert "does not know openai/gpt-of-tomorrow" in notice["text"]
    with pytest.raises(UserError, match="the price of openai/gpt-of-tomorrow is unknown"):
        begin(ask("openai/gpt-of-tomorrow"), budget={"usd": 1})


def test_a_known_model_is_started_without_a_word() -> None:
    run = begin(ask("openai/gpt-5"), budget={"usd": 1})
    assert told(run, "notice") == []
