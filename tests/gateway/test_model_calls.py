"""Calls through the real gateway to a provider that misbehaves: what they cost, what is told, when it ends."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
from django.db import connection, transaction

from djinn.executions.directory import lay_out
from djinn.executions.models import Execution
from djinn.executions.tokens import token_of
from djinn.providers.budgets import open_budget
from djinn.providers.models import Budget, ModelCall
from runtime_image.djinn_runtime.protocol import (
    JOURNAL_NAME,
    AgentBrief,
    Brief,
    decode_record,
    dump_brief,
)
from tests.core.serving import serving
from tests.gateway.provider_double import KEY, SIGNED, ProviderDouble, provider_double

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.xdist_group("model_calls")]

CHAT = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "Hi"}]


@pytest.fixture(scope="module")
def provider() -> Iterator[ProviderDouble]:
    with provider_double() as double:
        yield double


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the gateway has its socket."""
    return tmp_path_factory.mktemp("g")


@pytest.fixture(scope="module")
def gateway(django_db_setup: None, provider: ProviderDouble, folder: Path) -> Iterator[httpx2.Client]:
    """The gateway's process, of little patience; it knows the double by three names."""
    names = ("DOUBLE", "OPENAI", "GOOGLE")
    variables = {f"DJINN_PROVIDER_{name}_URL": provider.url for name in names}
    variables |= {f"DJINN_PROVIDER_{name}_KEY": KEY for name in names}
    variables |= {"DJINN_STALL_SECONDS": "1", "DJINN_FIRST_TOKEN_SECONDS": "2.5"}
    variables |= {"DJINN_PROVIDER_GONE_URL": "http://127.0.0.1:1/v1"}
    with serving("djinn.gateway.asgi", folder, **variables) as client:
        yield client


def execution_of(model: str, **columns: Any) -> Execution:
    return Execution.objects.create(
        stream="test", image="none", timeout_seconds=60, model=model, agent="ada", step="ASK", **columns
    )


def ask(gateway: httpx2.Client, execution: Execution, *, timeout: float = 30, **body: Any) -> httpx2.Response:
    whole = {"model": execution.model, "messages": MESSAGES, **body}
    headers = {"Authorization": f"Bearer {token_of(execution.pk)}"}
    return gateway.post(CHAT, json=whole, headers=headers, timeout=timeout)


def eventually(is_true: Any) -> None:
    deadline = time.monotonic() + 30
    while not is_true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


# --- Doubtful answers -------------------------------------------------------------------------------------------------
def test_after_five_answers_of_no_use_an_execution_gets_no_other_one(
    gateway: httpx2.Client, provider: ProviderDouble
) -> None:
    execution = execution_of("double/cut")
    assert [ask(gateway, execution).status_code for _ in range(5)] == [502] * 5
    before = len(provider.bodies)
    answer = ask(gateway, execution)
    error = answer.json()["error"]
    assert (answer.status_code, error["kind"], error["permanent"]) == (400, "gave_up", True)
    assert "5 answers of double in a row were of no use" in error["message"]
    assert (len(provider.bodies), ModelCall.objects.count()) == (before, 5)


def test_another_execution_is_not_held_to_it(gateway: httpx2.Client) -> None:
    for _ in range(5):
        ask(gateway, execution_of("double/cut"))
    assert ask(gateway, execution_of("double/cut")).status_code == 502


@pytest.mark.parametrize("model", ["double/429", "double/529", "gone/model"])
def test_a_provider_that_cannot_answer_now_may_be_asked_again(gateway: httpx2.Client, model: str) -> None:
    execution = execution_of(model)
    errors = [ask(gateway, execution).json()["error"] for _ in range(7)]
    assert not any(error["permanent"] or error["doubtful"] for error in errors)


def test_a_beginning_is_billed_with_its_tokens_and_counts_as_the_most(gateway: httpx2.Client) -> None:
    open_budget(scope="run-1", usd=None, tokens=100_000)
    ask(gateway, execution_of("google/google-cut", budgets=["run-1"]), max_tokens=5000)
    call, budget = ModelCall.objects.get(), Budget.objects.get()
    assert (call.status, call.fault, call.cost_usd) == ("failed", "broke_off", None)
    assert (call.input_tokens, call.output_tokens) == (10, 105)
    assert (budget.held_tokens, budget.used_tokens) == (0, call.held_tokens)


# --- Answers ----------------------------------------------------------------------------------------------------------
def test_googles_calls_stay_apart_with_their_signature_and_its_thinking_is_billed(gateway: httpx2.Client) -> None:
    message = ask(gateway, execution_of("google/google")).json()["choices"][0]["message"]
    first, second = message["tool_calls"]
    assert [(call["id"], call["function"]["name"]) for call in (first, second)] == [("a", "read"), ("b", "grep")]
    assert (first["extra_content"], "extra_content" in second) == (SIGNED, False)
    call = ModelCall.objects.get()
    assert (call.input_tokens, call.output_tokens) == (10, 105)


@pytest.mark.parametrize("model", ["no-finish"])
def test_an_answer_that_is_done_without_saying_why_is_whole(gateway: httpx2.Client, model: str) -> None:
    assert ask(gateway, execution_of(f"double/{model}")).json()["choices"][0]["finish_reason"] == "stop"


# --- Faults -----------------------------------------------------------------------------------------------------------
FAULTS = [
    ("401", 400, "key_refused", "key refused (401)", True, False),
    ("404", 400, "unknown_model", "unknown model (404)", True, False),
    ("long", 400, "too_long", "too long (400)", True, False),
    ("quota", 400, "no_credit", "no credit (429)", True, False),
    ("301", 400, "refused", "refused (301)", True, False),
    ("big", 400, "refused", "refused (400)", True, False),
    ("first-key", 400, "key_refused", "key refused (401)", True, False),
    ("429", 429, "rate_limited", "rate limited (429)", False, False),
    ("first-limit", 429, "rate_limited", "rate limited (429)", False, False),
    ("529", 529, "overloaded", "overloaded (529)", False, False),
    ("500", 500, "server_error", "server error (500)", False, True),
    ("504", 504, "timed_out", "timed out (504)", False, True),
    ("mid-limit", 429, "broke_off", "answer broke off (429)", False, True),
    ("says-error", 502, "broke_off", "answer broke off", False, True),
    ("cut", 502, "broke_off", "answer broke off", False, True),
    ("nothing", 502, "broke_off", "answer broke off", False, True),
    ("garbage", 502, "garbled", "unreadable answer", False, True),
    ("compressed", 502, "garbled", "unreadable answer", False, True),
    ("long-line", 502, "garbled", "unreadable answer", False, True),
    ("flood", 502, "garbled", "unreadable answer", False, True),
    ("stalled", 502, "stalled", "stalled", False, True),
    ("murmuring", 502, "stalled", "stalled", False, True),
]


@pytest.mark.parametrize(("model", "status", "kind", "failure", "permanent", "doubtful"), FAULTS)
def test_a_fault_is_told_by_fields_and_billed(
    gateway: httpx2.Client, model: str, status: int, kind: str, failure: str, permanent: bool, doubtful: bool
) -> None:
    answer = ask(gateway, execution_of(f"double/{model}"))
    error = answer.json()["error"]
    assert (answer.status_code, error["type"], error["code"]) == (status, "provider_error", status)
    assert (error["kind"], error["failure"], error["permanent"], error["doubtful"]) == (
        kind, failure, permanent, doubtful
    )  # fmt: skip
    call = ModelCall.objects.get()
    assert (call.status, call.fault, call.error) == ("failed", kind, error["message"])
    assert KEY not in answer.text
    assert len(error["message"]) < 700


def test_an_unreachable_provider_is_told_as_that(gateway: httpx2.Client) -> None:
    error = ask(gateway, execution_of("gone/model")).json()["error"]
    assert (error["kind"], error["message"]) == ("unreachable", "gone cannot be reached: ConnectError.")


def test_a_stated_wait_is_passed_on_as_a_field(gateway: httpx2.Client) -> None:
    assert ask(gateway, execution_of("double/429")).json()["error"]["retry_after"] == 7.2


# --- With the runtime ------------------------------------------------------------------------------------------------
RUNTIME = Path(__file__).resolve().parents[2] / "runtime_image"
REFUSED_KEY = "double refused the key (401). Set DJINN_PROVIDER_DOUBLE_KEY and restart the run."
BROKE_OFF = "Model call failed after 5 attempts: double broke off before the end of its answer."
ENDS = [("401", "rejected", REFUSED_KEY, 1), ("cut", "model", BROKE_OFF, 5)]


@pytest.mark.parametrize(("model", "reason", "message", "calls"), ENDS)
def test_the_runtime_ends_with_the_words_of_the_gateway(
    gateway: httpx2.Client, folder: Path, tmp_path: Path, model: str, reason: str, message: str, calls: int
) -> None:
    execution = execution_of(f"double/{model}")
    agent = AgentBrief("ada", execution.model, "You test.", "Do it.", tools=[])
    brief = Brief("x", "agent", token_of(execution.pk), str(tmp_path), str(folder / "s"), 60, agent=agent)
    directory = tmp_path / "execution"
    lay_out(directory, dump_brief(brief), owner=None, has_own_tree=False)
    command = [sys.executable, "-m", "djinn_runtime", str(directory)]
    subprocess.run(command, env={**os.environ, "PYTHONPATH": str(RUNTIME)}, timeout=90, check=True)
    finished = decode_record((directory / JOURNAL_NAME).read_bytes().splitlines()[-1])
    assert finished.data["error"] == {"reason": reason, "message": message}
    assert ModelCall.objects.count() == calls


# --- Connections ------------------------------------------------------------------------------------------------------
def test_one_connection_serves_call_after_call(gateway: httpx2.Client, provider: ProviderDouble) -> None:
    ask(gateway, execution_of("double/good"))
    provider.connections.clear()
    for _ in range(5):
        assert ask(gateway, execution_of("double/good")).status_code == 200
    assert len(provider.connections) == 1


def test_a_caller_that_leaves_while_its_call_is_opened_leaves_nothing_held(
    gateway: httpx2.Client, provider: ProviderDouble
) -> None:
    open_budget(scope="run-1", usd=None, tokens=100_000)
    execution, before = execution_of("double/good", budgets=["run-1"]), len(provider.bodies)
    with transaction.atomic():
        Budget.objects.select_for_update().get()
        with pytest.raises(httpx2.ReadTimeout):
            ask(gateway, execution, timeout=1)
        eventually(lambda: _waits_for_a_lock())
    eventually(lambda: ModelCall.objects.exists())
    eventually(lambda: not ModelCall.objects.filter(status="open").exists())
    call, budget = ModelCall.objects.get(), Budget.objects.get()
    assert (call.status, budget.held_tokens, budget.used_tokens) == ("abandoned", 0, 0)
    assert len(provider.bodies) == before


def _waits_for_a_lock() -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM pg_locks WHERE NOT granted")
        return bool(cursor.fetchone()[0])


# --- Requests ---------------------------------------------------------------------------------------------------------
ABSURD = ["1e300", "1e400", "true", "-1", "0", "1.5", '"5"', "1" * 300, "1" * 5000, "NaN", "[]"]


@pytest.mark.parametrize("value", ABSURD, ids=lambda value: value[:10])
@pytest.mark.parametrize("key", ["max_tokens", "max_completion_tokens", "n"])
@pytest.mark.parametrize("budgets", [[], ["run-1"]])
def test_a_number_that_bounds_nothing_is_a_bad_request(
    gateway: httpx2.Client, provider: ProviderDouble, key: str, value: str, budgets: list[str]
) -> None:
    open_budget(scope="run-1", usd=None, tokens=100_000)
    execution, before = execution_of("double/good", budgets=budgets), len(provider.bodies)
    content = f'{{"model": "double/good", "messages": [], "{key}": {value}}}'
    answer = gateway.post(CHAT, content=content, headers={"Authorization": f"Bearer {token_of(execution.pk)}"})
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")
    assert (len(provider.bodies), Budget.objects.get().held_tokens) == (before, 0)


@pytest.mark.parametrize("calls", [5, {}, "x", [5], [{"function": 5, "x": 1}]])
@pytest.mark.parametrize("budgets", [[], ["run-1"]])
def test_messages_of_any_shape_break_nothing(gateway: httpx2.Client, calls: Any, budgets: list[str]) -> None:
    open_budget(scope="run-1", usd=None, tokens=100_000)
    execution = execution_of("double/good", budgets=budgets)
    messages = [{"role": "assistant", "tool_calls": calls, "extra_content": 5}]
    assert ask(gateway, execution, messages=messages).status_code in {200, 400}


def test_a_request_is_put_into_the_dialect_of_its_model(gateway: httpx2.Client, provider: ProviderDouble) -> None:
    open_budget(scope="run-1", usd=None, tokens=10_000)
    ask(gateway, execution_of("openai/gpt-5", budgets=["run-1"]), max_tokens=50_000, temperature=0.2)
    sent = provider.bodies[-1]
    assert ("max_tokens" in sent, "temperature" in sent) == (False, False)
    assert 256 <= sent["max_completion_tokens"] < 10_000


def test_many_calls_at_once_are_all_answered(gateway: httpx2.Client) -> None:
    executions = [execution_of("double/good") for _ in range(20)]
    answers: list[httpx2.Response] = []
    threads = [threading.Thread(target=lambda e=e: answers.append(ask(gateway, e))) for e in executions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer.text for answer in answers if answer.status_code != 200] == []
    assert len(answers) == 20
