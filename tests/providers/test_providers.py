"""Models' names, providers, usage and cost, the script, the bill. Calls over HTTP are in tests/gateway."""

from __future__ import annotations

import asyncio
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pytest_django import Settings

from djinn.core.errors import UserError
from djinn.providers.base import CallContext, ProviderError
from djinn.providers.catalogue import KNOWN, check_model, find_provider, has_key, parse_model
from djinn.providers.compatible import CompatibleProvider
from djinn.providers.models import ModelCall
from djinn.providers.scripted import ScriptedProvider
from djinn.providers.selectors import Bill, add_bills, bills_of
from djinn.providers.services import CallEnd, TooManyDoubts, close_call, open_call, refuse_doubts
from djinn.providers.usage import Usage, cost_usd, usage_of


@pytest.mark.parametrize(
    ("text", "parts"),
    [("a/b", ("a", "b")), ("openrouter/openai/gpt-5", ("openrouter", "openai/gpt-5")), ("a/b:c", ("a", "b:c"))],
)
def test_a_model_is_its_provider_and_its_name(text: str, parts: tuple[str, str]) -> None:
    name = parse_model(text)
    assert ((name.provider, name.model), str(name)) == (parts, text)


@pytest.mark.parametrize("text", ["", "/", "a", "a/", "/b"])
def test_what_is_no_model_is_refused_with_the_text(text: str) -> None:
    with pytest.raises(UserError, match="provider/model") as caught:
        parse_model(text)
    assert repr(text) in caught.value.message


@pytest.mark.parametrize("name", KNOWN)
def test_a_known_provider_needs_its_key(name: str) -> None:
    variable = KNOWN[name][1]
    assert isinstance(find_provider(name, environment={variable: "k"}), CompatibleProvider)
    for environment in ({}, {variable: ""}, {variable: " \n"}):
        with pytest.raises(UserError, match=variable):
            find_provider(name, environment=environment)


@pytest.mark.parametrize(
    ("name", "environment"),
    [
        ("local", {"DJINN_PROVIDER_LOCAL_URL": "http://127.0.0.1:1/v1"}),
        ("my-house", {"DJINN_PROVIDER_MY_HOUSE_URL": "http://h/v1", "DJINN_PROVIDER_MY_HOUSE_KEY": "k"}),
        ("openai", {"DJINN_PROVIDER_OPENAI_URL": "http://h/v1"}),
        ("openai", {"DJINN_PROVIDER_OPENAI_KEY": "k"}),
        ("openai", {"OPENAI_API_KEY": "k\n"}),
    ],
)
def test_a_provider_is_described_by_the_environment(name: str, environment: dict[str, str]) -> None:
    assert find_provider(name, environment=environment).name == name


@pytest.mark.parametrize("environment", [{}, {"DJINN_PROVIDER_LOCAL_KEY": "k"}, {"DJINN_PROVIDER_LOCAL_URL": ""}])
def test_an_unknown_provider_is_said_to_need_its_address(environment: dict[str, str]) -> None:
    with pytest.raises(UserError, match="DJINN_PROVIDER_LOCAL_URL"):
        find_provider("local", environment=environment)


@pytest.mark.parametrize("key", ["schlüssel", "a\nb", "a\x00b"])
def test_a_key_that_no_header_can_hold_is_refused_without_being_quoted(key: str) -> None:
    with pytest.raises(UserError) as caught:
        find_provider("openai", environment={"OPENAI_API_KEY": key})
    assert key not in caught.value.message


def test_the_script_is_always_there_and_nothing_unknown_is(settings: Settings) -> None:
    check_model("scripted/demo")
    with pytest.raises(UserError, match="no provider 'nobody'"):
        check_model("nobody/x")


FIVE = {"prompt_tokens": 5, "completion_tokens": 0}
USAGES: list[tuple[Any, Usage | None]] = [
    ({}, None),
    ({"usage": None}, None),
    ({"usage": []}, None),
    ({"usage": {}}, None),
    ({"usage": {"prompt_tokens": 5, "completion_tokens": None}}, None),
    ({"usage": {**FIVE, "prompt_tokens_details": None}}, Usage(5, 0, 0)),
    ({"usage": {**FIVE, "prompt_tokens_details": {"cached_tokens": 2}}}, Usage(5, 0, 2)),
    ({"usage": {**FIVE, "prompt_tokens_details": {"cached_tokens": 9}}}, Usage(5, 0, 5)),
    ({"usage": {**FIVE, "prompt_tokens_details": [1]}}, Usage(5, 0, 0)),
    ({"usage": {**FIVE, "prompt_tokens": "5"}}, None),
    ({"usage": {**FIVE, "prompt_tokens": -5}}, None),
    ({"usage": {**FIVE, "completion_tokens": 1.5}}, None),
    ({"usage": {**FIVE, "completion_tokens": True}}, None),
    ({"usage": {**FIVE, "completion_tokens": 2**31}}, None),
    ({"usage": {**FIVE, "total_tokens": 2**31}}, None),
    ({"usage": {**FIVE, "total_tokens": "many"}}, None),
]


@pytest.mark.parametrize(("chunk", "usage"), USAGES)
def test_the_usage_is_what_a_chunk_states(chunk: Any, usage: Usage | None) -> None:
    assert usage_of(chunk) == usage


@pytest.mark.parametrize(
    ("provider", "model", "usage", "cost"),
    [
        ("openai", "gpt-5", Usage(1_000_000, 0), Decimal("1.25")),
        ("openai", "gpt-5", Usage(0, 1_000_000), Decimal("10")),
        ("openai", "gpt-5", Usage(1_000_000, 0, 1_000_000), Decimal("0.125")),
        ("openai", "gpt-5", Usage(0, 0), Decimal(0)),
        ("openai", "gpt-of-nobody", Usage(5, 5), None),
        ("local", "gpt-5", Usage(5, 5), None),
        ("my-openai", "gpt-5", Usage(5, 5), None),
        ("xai", "grok-4.3", Usage(1000, 0), Decimal("0.00125")),
        ("scripted", "demo", Usage(5, 5), Decimal(0)),
    ],
)
def test_the_cost_is_the_list_price_and_unknown_is_not_nothing(
    provider: str, model: str, usage: Usage, cost: Decimal | None
) -> None:
    assert cost_usd(provider, model, usage) == cost


# --- The script -------------------------------------------------------------------------------------------------------
SCRIPT = """\
steps:
  FIX:
    - - {say: One two., call: {read: {path: a}}}
      - {calls: [{edit: {x: 1}}, {complete: null}]}
    - - {say: Again.}
  PLAN:
    - - {json: {"items": [1, {"b": "ä", "a": null}]}}
      - {json: []}
"""


def _play(folder: Path, *, model: str = "play", step: str = "FIX", visit: int = 1, spoken: int = 0) -> list[Any]:
    messages = [{"role": "user", "content": "a b c"}, *[{"role": "assistant", "content": "x"}] * spoken]

    async def play() -> list[Any]:
        context = CallContext(execution=1, agent="ada", step=step, visit=visit)
        provider = ScriptedProvider(folder, seconds_between=0)
        return [chunk async for chunk in provider.chat(model, {"messages": messages}, context)]

    return asyncio.run(play())


@pytest.fixture
def scripts(tmp_path: Path) -> Path:
    (tmp_path / "play.yaml").write_text(SCRIPT)
    (tmp_path / "list.yaml").write_text("[]")
    (tmp_path.parent / "outside.yaml").write_text(SCRIPT)
    return tmp_path


def _said(chunks: list[Any]) -> tuple[str, list[str]]:
    deltas = [choice["delta"] for chunk in chunks for choice in chunk["choices"]]
    calls = [part["function"]["name"] for delta in deltas for part in delta.get("tool_calls", [])]
    return "".join(delta.get("content", "") for delta in deltas), calls


@pytest.mark.parametrize(
    ("visit", "spoken", "said", "calls"),
    [(1, 0, "One two.", ["read"]), (1, 1, "", ["edit", "complete"]), (2, 0, "Again.", []), (9, 0, "Again.", [])],
)
def test_the_script_plays_by_visit_and_turn(
    scripts: Path, visit: int, spoken: int, said: str, calls: list[str]
) -> None:
    chunks = _play(scripts, visit=visit, spoken=spoken)
    assert _said(chunks) == (said, calls)
    assert chunks[-2]["choices"][0]["finish_reason"] == ("tool_calls" if calls else "stop")
    assert chunks[-1]["usage"]["completion_tokens"] == len(said.split()) + 20 * len(calls)


@pytest.mark.parametrize(("spoken", "value"), [(0, {"items": [1, {"b": "ä", "a": None}]}), (1, [])])
def test_the_script_answers_with_json_by_turn(scripts: Path, spoken: int, value: Any) -> None:
    chunks = _play(scripts, step="PLAN", spoken=spoken)
    text, calls = _said(chunks)
    assert (json.loads(text), calls, chunks[-2]["choices"][0]["finish_reason"]) == (value, [], "stop")


@pytest.mark.parametrize(
    "asked",
    [{"model": "none"}, {"model": "list"}, {"model": "../outside"}, {"model": "."}, {"step": "OTHER"}, {"spoken": 2}],
)
def test_what_the_script_does_not_hold_is_a_permanent_error(scripts: Path, asked: dict[str, Any]) -> None:
    with pytest.raises(ProviderError) as caught:
        _play(scripts, **asked)
    assert caught.value.permanent
    assert caught.value.status in {400, 404}


# --- The bill ---------------------------------------------------------------------------------------------------------
def _call(execution: int, cost: str | None, tokens: int | None = 10) -> None:
    ModelCall.objects.create(
        execution=execution,
        provider="p",
        model="m",
        input_tokens=tokens,
        output_tokens=tokens,
        cost_usd=None if cost is None else Decimal(cost),
    )


@pytest.mark.django_db
def test_the_bill_of_an_execution_is_the_sum_of_its_calls() -> None:
    _call(1, "0.1")
    _call(1, "0.2")
    _call(2, "7")
    assert bills_of([1, 3]) == {1: Bill(2, 20, 20, Decimal("0.3"))}


@pytest.mark.django_db
def test_one_unknown_cost_makes_the_sum_unknown() -> None:
    _call(1, "0.1")
    _call(1, None, None)
    assert bills_of([1])[1] == Bill(2, 10, 10, None)


def test_bills_add_up_and_unknown_stays_unknown() -> None:
    one, unknown = Bill(1, 2, 3, Decimal(4)), Bill(1, 2, 3, None)
    assert add_bills([]) == Bill(0, 0, 0, Decimal(0))
    assert add_bills([one, one]) == Bill(2, 4, 6, Decimal(8))
    assert add_bills([one, unknown, one]) == Bill(3, 6, 9, None)
    assert one.tokens == 5


@pytest.mark.django_db
def test_a_call_is_in_the_bill_before_it_is_sent_and_is_completed_later() -> None:
    call, _ = open_call(name=parse_model("openai/gpt-5"), context=CallContext(7, "ada", "FIX", 1), body={})
    assert ModelCall.objects.get().status == "open"
    close_call(call, CallEnd(ModelCall.Status.FAILED, usage=Usage(1_000_000, 0), seconds=2.0, error="x" * 5000))
    row = ModelCall.objects.get()
    assert (row.status, row.cost_usd, row.execution, len(row.error)) == ("failed", Decimal("1.25"), 7, 2000)


# --- Doubtful answers -------------------------------------------------------------------------------------------------
DOUBTS: list[tuple[list[tuple[str, str]], bool]] = [
    ([("failed", "broke_off")] * 5, True),
    ([("failed", "broke_off")] * 4, False),
    ([("failed", "broke_off")] * 4 + [("answered", "")] + [("failed", "stalled")] * 4, False),
    ([("failed", "broke_off")] * 4 + [("failed", "rate_limited"), ("abandoned", ""), ("failed", "garbled")], True),
    ([("failed", "rate_limited")] * 9, False),
    ([("open", "")] * 9, False),
]


@pytest.mark.django_db
@pytest.mark.parametrize(("calls", "is_refused"), DOUBTS)
def test_five_doubtful_answers_since_the_last_good_one_are_enough(
    calls: list[tuple[str, str]], is_refused: bool
) -> None:
    for status, fault in calls:
        ModelCall.objects.create(
            execution=7, provider="openai", model="m", status=status, fault=fault, error="It broke."
        )
    ModelCall.objects.create(execution=8, provider="openai", model="m", status="answered")
    refuse_doubts(parse_model("openai/m"), 8)
    if is_refused:
        with pytest.raises(TooManyDoubts, match=r"OpenAI in a row were of no use\. The last one: It broke\."):
            refuse_doubts(parse_model("openai/m"), 7)
    else:
        refuse_doubts(parse_model("openai/m"), 7)


# --- Keys -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "environment", "has"),
    [
        ("scripted", {}, True),
        ("openai", {}, False),
        ("openai", {"OPENAI_API_KEY": " "}, False),
        ("openai", {"OPENAI_API_KEY": "k"}, True),
        ("openai", {"DJINN_PROVIDERS_WITH_KEYS": "xai, openai"}, True),
        ("openai", {"DJINN_PROVIDERS_WITH_KEYS": "xai"}, False),
        ("local", {"DJINN_PROVIDER_LOCAL_URL": "http://h/v1"}, True),
    ],
)
def test_a_key_is_here_or_with_the_gateway(name: str, environment: dict[str, str], has: bool) -> None:
    assert has_key(name, environment=environment) is has


def test_a_model_without_key_or_script_is_refused_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("OPENAI_API_KEY", "DJINN_PROVIDERS_WITH_KEYS"):
        monkeypatch.delenv(variable, raising=False)
    with pytest.raises(UserError, match="OpenAI has no key: set OPENAI_API_KEY"):
        check_model("openai/gpt-5")
    with pytest.raises(UserError, match="There is no script 'none'"):
        check_model("scripted/none")
