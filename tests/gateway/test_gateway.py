"""The gateway, a real process on a Unix socket, between containers' tokens and a real provider's misbehaviour."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import httpx2
import pytest
from django.utils import timezone

from djinn.executions.models import Execution
from djinn.executions.tokens import token_of
from djinn.providers.budgets import open_budget
from djinn.providers.models import Budget, ModelCall
from tests.core.serving import serving
from tests.gateway.provider_double import KEY, ProviderDouble, provider_double

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.xdist_group("gateway")]

CHAT = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "Hi"}]
SCRIPT = """\
steps:
  ASK:
    - - say: One two three
        call: {read: {path: a.txt}}
      - call: {complete: {summary: Done.}}
"""


@pytest.fixture(scope="module")
def provider() -> Iterator[ProviderDouble]:
    with provider_double() as double:
        yield double


@pytest.fixture(scope="module")
def gateway(
    django_db_setup: None, provider: ProviderDouble, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx2.Client]:
    """The gateway's process; it knows the double as `double`, as `openai` for its prices, and one that is not there."""
    folder = tmp_path_factory.mktemp("g")
    (folder / "scripts").mkdir()
    (folder / "scripts" / "play.yaml").write_text(SCRIPT)
    variables = {f"DJINN_PROVIDER_{name}_URL": provider.url for name in ("DOUBLE", "OPENAI")}
    variables |= {f"DJINN_PROVIDER_{name}_KEY": KEY for name in ("DOUBLE", "OPENAI")}
    variables |= {"DJINN_PROVIDER_GONE_URL": "http://127.0.0.1:1/v1", "DJINN_PIPELINES": str(folder)}
    with serving("djinn.gateway.asgi", folder, **variables) as client:
        yield client


def _execution(model: str, **columns: Any) -> Execution:
    return Execution.objects.create(
        stream="test", image="none", timeout_seconds=60, model=model, agent="ada", step="ASK", **columns
    )


def _bearer(execution: Execution) -> dict[str, str]:
    return {"Authorization": f"Bearer {token_of(execution.pk)}"}


def _ask(gateway: httpx2.Client, model: str, *, stream: bool = False, messages: Any = MESSAGES) -> httpx2.Response:
    body = {"model": model, "messages": messages, "stream": stream}
    return gateway.post(CHAT, json=body, headers=_bearer(_execution(model)))


def _chunks(text: str) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def _closed_call() -> ModelCall:
    """The only call, once it is no longer open."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        call = ModelCall.objects.get()
        if call.status != ModelCall.Status.OPEN:
            return call
        time.sleep(0.05)
    raise AssertionError("the call stayed open")


# --- Who comes in -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("header", [None, "", "Bearer", "Basic {token}", "Bearer {forged}", "Bearer {other}",
                                    "Bearer 1", "Bearer x.y", "Bearer {huge}", "Bearer \xff.\xff"])  # fmt: skip
@pytest.mark.parametrize("path", [CHAT, "/v1/models"])
def test_nobody_comes_in_without_a_genuine_token(gateway: httpx2.Client, header: str | None, path: str) -> None:
    execution = _execution("double/good")
    token = token_of(execution.pk)
    forged = token[:-1] + ("0" if token[-1] != "0" else "1")
    other = f"{execution.pk}.{token_of(execution.pk + 1).partition('.')[2]}"
    names = {"token": token, "forged": forged, "other": other, "huge": "9" * 30 + token}
    headers = {} if header is None else {"Authorization": header.format(**names).encode("latin-1")}
    ask = gateway.get if path == "/v1/models" else gateway.post
    answer = ask(path, headers=headers)
    assert (answer.status_code, answer.json()["error"]["type"]) == (401, "authentication_error")


@pytest.mark.parametrize("status", ["exited", "killed", "lost"])
def test_the_token_of_an_execution_that_has_ended_opens_nothing(gateway: httpx2.Client, status: str) -> None:
    execution = _execution("double/good", status=status, ended_at=timezone.now())
    answer = gateway.post(CHAT, json={"model": "double/good", "messages": []}, headers=_bearer(execution))
    assert answer.status_code == 401


@pytest.mark.parametrize(("own", "asked"), [("double/good", "double/slow"), ("", "double/good"), ("a/b", "A/B")])
def test_an_execution_uses_its_own_model_only(gateway: httpx2.Client, own: str, asked: str) -> None:
    body = {"model": asked, "messages": MESSAGES}
    answer = gateway.post(CHAT, json=body, headers=_bearer(_execution(own)))
    assert (answer.status_code, answer.json()["error"]["type"]) == (403, "permission_error")
    assert not ModelCall.objects.exists()


def test_the_list_of_models_holds_the_executions_own(gateway: httpx2.Client) -> None:
    lists = [gateway.get("/v1/models", headers=_bearer(_execution(model))).json()["data"] for model in ("a/b", "")]
    assert lists == [[{"id": "a/b", "object": "model"}], []]


BODIES = {
    "empty": b"",
    "no JSON": b"{",
    "not UTF-8": b'{"model": "\xff"}',
    "a list": b"[]",
    "no model": b'{"messages": []}',
    "no messages": b'{"model": "double/good"}',
    "model is a number": b'{"model": 1, "messages": []}',
    "messages are an object": b'{"model": "double/good", "messages": {}}',
    "a message is a text": b'{"model": "double/good", "messages": ["hi"]}',
    "very deep": b'{"model": "double/good", "messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_a_bad_body_is_refused(gateway: httpx2.Client, body: bytes) -> None:
    answer = gateway.post(CHAT, content=body, headers=_bearer(_execution("double/good")))
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")


def test_a_body_that_is_too_large_is_refused(gateway: httpx2.Client) -> None:
    body = b'{"model": "' + b"x" * (17 * 1024 * 1024) + b'"}'
    answer = gateway.post(CHAT, content=body, headers=_bearer(_execution("double/good")))
    assert (answer.status_code, answer.json()["error"]["type"]) == (413, "invalid_request_error")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_only_post_asks_a_model(gateway: httpx2.Client, method: str) -> None:
    assert gateway.request(method, CHAT, headers=_bearer(_execution("double/good"))).status_code == 405


@pytest.mark.parametrize("path", ["/", "/v1/embeddings", "/admin/", "/api/v1/runs/", "/v1/models/x"])
def test_there_is_nothing_else_behind_the_door(gateway: httpx2.Client, path: str) -> None:
    answer = gateway.get(path, headers=_bearer(_execution("double/good")))
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, 404)


# --- Answers ----------------------------------------------------------------------------------------------------------
def test_a_streamed_answer_comes_chunk_by_chunk(gateway: httpx2.Client, provider: ProviderDouble) -> None:
    answer = _ask(gateway, "double/good", stream=True)
    *chunks, last = _chunks(answer.text)
    assert "".join(c["choices"][0]["delta"].get("content", "") for c in chunks if c["choices"]) == "Hello"
    assert (answer.status_code, last) == (200, "[DONE]")
    assert provider.bodies[-1]["model"] == "good"
    assert provider.headers[-1]["authorization"] == f"Bearer {KEY}"


def test_a_chunk_is_passed_on_before_the_next_one_exists(gateway: httpx2.Client, provider: ProviderDouble) -> None:
    provider.go_on.clear()
    body = {"model": "double/slow", "messages": MESSAGES, "stream": True}
    headers = _bearer(_execution("double/slow"))
    with gateway.stream("POST", CHAT, json=body, headers=headers) as answer:
        lines = answer.iter_lines()
        assert "Hel" in next(lines)
        provider.go_on.set()
        assert "lo" in "".join(lines)


def test_a_whole_answer_is_put_together(gateway: httpx2.Client) -> None:
    answer = _ask(gateway, "double/good").json()
    choice = {"index": 0, "message": {"role": "assistant", "content": "Hello"}, "finish_reason": "stop"}
    assert (answer["object"], answer["choices"], answer["usage"]["prompt_tokens"]) == ("chat.completion", [choice], 7)


def test_a_tool_call_in_pieces_is_put_together(gateway: httpx2.Client) -> None:
    choice = _ask(gateway, "double/tools").json()["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["tool_calls"] == [
        {"id": "t1", "type": "function", "function": {"name": "read", "arguments": '{"path": "a.txt"}'}}
    ]


@pytest.mark.parametrize("model", ["comments", "null-error", "silent"])
def test_what_says_nothing_between_chunks_is_passed_over(gateway: httpx2.Client, model: str) -> None:
    assert _ask(gateway, f"double/{model}").json()["choices"][0]["message"]["content"] == "Hello"


@pytest.mark.parametrize("stream", [True, False])
def test_half_a_character_passes_both_ways(gateway: httpx2.Client, provider: ProviderDouble, stream: bool) -> None:
    half = b'{"model": "double/half-emoji", "messages": [{"role": "user", "content": "\\ud83d"}], "stream": %s}'
    content = half % (b"true" if stream else b"false")
    answer = gateway.post(CHAT, content=content, headers=_bearer(_execution("double/half-emoji")))
    assert ("\\ud83d" if stream else "\\ufffd") in answer.text
    assert provider.bodies[-1]["messages"][0]["content"] == "\ud83d"


def test_the_script_plays_its_turns_by_the_conversation(gateway: httpx2.Client) -> None:
    spoken = [*MESSAGES, {"role": "assistant", "content": "One two three"}, {"role": "tool", "content": "x"}]
    first, second = (_ask(gateway, "scripted/play", messages=messages).json() for messages in (MESSAGES, spoken))
    assert first["choices"][0]["message"]["content"] == "One two three"
    assert first["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "read"
    assert second["choices"][0]["message"]["tool_calls"][0]["function"]["name"] == "complete"


# --- Refusals ---------------------------------------------------------------------------------------------------------
REFUSED = [("401", 400, None), ("404", 400, None), ("301", 400, None), ("long", 400, None), ("quota", 400, None),
           ("429", 429, "8"), ("429-date", 429, None),
           ("429-odd", 429, None), ("500", 500, None), ("529", 529, None)]  # fmt: skip


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(("model", "status", "retry_after"), REFUSED)
def test_a_providers_refusal_is_told_and_billed_as_failed(
    gateway: httpx2.Client, model: str, status: int, retry_after: str | None, stream: bool
) -> None:
    answer = _ask(gateway, f"double/{model}", stream=stream)
    call = ModelCall.objects.get()
    assert (answer.status_code, answer.headers.get("Retry-After")) == (status, retry_after)
    assert (call.status, call.cost_usd) == ("failed", None)
    assert call.error == answer.json()["error"]["message"] != ""


BROKEN = ["cut", "garbage", "no-chunk", "says-error"]


@pytest.mark.parametrize("model", BROKEN)
def test_an_answer_that_breaks_off_is_no_whole_answer(gateway: httpx2.Client, model: str) -> None:
    answer = _ask(gateway, f"double/{model}")
    assert (answer.status_code, answer.json()["error"]["type"]) == (502, "provider_error")
    assert ModelCall.objects.get().status == "failed"


@pytest.mark.parametrize("model", BROKEN)
def test_a_stream_that_breaks_off_ends_with_an_error_and_without_done(gateway: httpx2.Client, model: str) -> None:
    first, *_, last = _chunks(_ask(gateway, f"double/{model}", stream=True).text)
    assert first["choices"][0]["delta"]["content"] == "Hel"
    assert (last["error"]["type"], last["error"]["code"]) == ("provider_error", 502)
    assert _closed_call().status == "failed"


def test_chunks_that_make_no_answer_are_the_providers_fault(gateway: httpx2.Client) -> None:
    assert _ask(gateway, "double/bad-delta").status_code == 502


def test_a_provider_that_is_not_there_can_be_asked_again(gateway: httpx2.Client) -> None:
    assert _ask(gateway, "gone/model").status_code == 502
    assert ModelCall.objects.get().status == "failed"


@pytest.mark.parametrize("model", ["nobody/knows", "nonsense", "anthropic/", "scripted/../x", "scripted/none"])
def test_a_model_that_cannot_be_served_is_said_so(gateway: httpx2.Client, model: str) -> None:
    assert _ask(gateway, model).status_code in {400, 404}


def test_the_key_is_in_no_answer_and_no_row(gateway: httpx2.Client) -> None:
    answer = _ask(gateway, "double/401")
    words = "double refused the key (401). Set DJINN_PROVIDER_DOUBLE_KEY and restart the run."
    assert answer.json()["error"]["message"] == words
    assert KEY not in answer.text
    assert KEY not in ModelCall.objects.get().error


# --- The bill ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("stream", [True, False])
def test_an_answered_call_is_billed_with_its_tokens(gateway: httpx2.Client, stream: bool) -> None:
    _ask(gateway, "double/good", stream=stream)
    call = _closed_call()
    assert (call.status, call.provider, call.model, call.agent) == ("answered", "double", "good", "ada")
    assert (call.input_tokens, call.output_tokens, call.cached_tokens) == (7, 2, 3)
    assert call.execution == Execution.objects.get().pk
    assert call.first_token_seconds is not None
    assert call.seconds is not None
    assert call.first_token_seconds <= call.seconds


def test_a_price_that_is_not_known_is_unknown_and_not_nothing(gateway: httpx2.Client) -> None:
    _ask(gateway, "double/good")
    assert _closed_call().cost_usd is None


def test_a_known_price_is_billed(gateway: httpx2.Client) -> None:
    _ask(gateway, "openai/gpt-5")
    assert _closed_call().cost_usd == Decimal("1.25")


def test_the_script_costs_nothing(gateway: httpx2.Client) -> None:
    _ask(gateway, "scripted/play")
    assert _closed_call().cost_usd == 0


@pytest.mark.parametrize("model", ["silent", "strange-usage", "endless-usage"])
def test_a_usage_that_is_not_stated_is_unknown(gateway: httpx2.Client, model: str) -> None:
    _ask(gateway, f"double/{model}")
    call = _closed_call()
    assert (call.status, call.input_tokens, call.output_tokens, call.cost_usd) == ("answered", None, None, None)


@pytest.mark.parametrize("stream", [True, False])
def test_a_call_that_its_container_leaves_is_abandoned_and_let_go(
    gateway: httpx2.Client, provider: ProviderDouble, stream: bool
) -> None:
    provider.was_left.clear()
    body = {"model": "double/endless", "messages": MESSAGES, "stream": stream}
    headers = _bearer(_execution("double/endless"))
    if stream:
        with gateway.stream("POST", CHAT, json=body, headers=headers) as answer:
            next(answer.iter_lines())
    else:
        with pytest.raises(httpx2.ReadTimeout):
            gateway.post(CHAT, json=body, headers=headers, timeout=1)
    assert _closed_call().status == "abandoned"
    assert provider.was_left.wait(30)


def test_a_call_that_does_not_fit_into_the_budget_is_refused_before_it_is_sent(
    gateway: httpx2.Client, provider: ProviderDouble
) -> None:
    open_budget(scope="run-1", usd=None, tokens=100)
    execution = _execution("double/good", budgets=["run-1"])
    before = len(provider.bodies)
    body = {"model": "double/good", "messages": MESSAGES}
    answer = gateway.post(CHAT, json=body, headers=_bearer(execution))
    assert answer.status_code == 402
    assert "run-1 has 100 of 100 tokens left" in answer.json()["error"]["message"]
    assert len(provider.bodies) == before
    assert not ModelCall.objects.exists()


def test_a_call_in_a_budget_is_sent_with_a_bound_on_its_answer(
    gateway: httpx2.Client, provider: ProviderDouble
) -> None:
    open_budget(scope="run-1", usd=None, tokens=1000)
    body = {"model": "double/good", "messages": MESSAGES}
    answer = gateway.post(CHAT, json=body, headers=_bearer(_execution("double/good", budgets=["run-1"])))
    assert answer.status_code == 200
    assert 256 <= provider.bodies[-1]["max_tokens"] < 1000
    call = _closed_call()
    assert (Budget.objects.get().held_tokens, Budget.objects.get().used_tokens) == (
        0, call.input_tokens + call.output_tokens
    )  # fmt: skip


def _ended_budget(gateway: httpx2.Client, model: str) -> Budget:
    open_budget(scope="run-1", usd=None, tokens=10_000)
    body = {"model": model, "messages": MESSAGES, "max_tokens": 1000}
    gateway.post(CHAT, json=body, headers=_bearer(_execution(model, budgets=["run-1"])))
    _closed_call()
    return Budget.objects.get()


@pytest.mark.parametrize("model", ["double/429", "double/500", "double/401", "gone/model", "scripted/none"])
def test_a_call_that_was_refused_uses_nothing_of_the_budget(gateway: httpx2.Client, model: str) -> None:
    budget = _ended_budget(gateway, model)
    assert (budget.held_tokens, budget.used_tokens) == (0, 0)


@pytest.mark.parametrize("model", ["double/504", "double/cut", "double/silent"])
def test_a_call_of_which_nobody_knows_what_it_used_counts_as_the_most(gateway: httpx2.Client, model: str) -> None:
    budget = _ended_budget(gateway, model)
    assert budget.held_tokens == 0
    assert budget.used_tokens > 1000


def test_under_a_budget_a_call_without_a_bound_is_a_bad_request(
    gateway: httpx2.Client, provider: ProviderDouble
) -> None:
    open_budget(scope="run-1", usd=None, tokens=10_000)
    before = len(provider.bodies)
    body = {"model": "double/good", "messages": MESSAGES, "n": 5}
    answer = gateway.post(CHAT, json=body, headers=_bearer(_execution("double/good", budgets=["run-1"])))
    assert (answer.status_code, len(provider.bodies)) == (400, before)
    assert "n must be 1" in answer.json()["error"]["message"]
    assert Budget.objects.get().held_tokens == 0


def test_under_a_budget_both_bounds_of_an_answer_are_lowered(gateway: httpx2.Client, provider: ProviderDouble) -> None:
    open_budget(scope="run-1", usd=None, tokens=10_000)
    body = {"model": "double/good", "messages": MESSAGES, "max_tokens": 100_000, "max_completion_tokens": 300}
    gateway.post(CHAT, json=body, headers=_bearer(_execution("double/good", budgets=["run-1"])))
    assert (provider.bodies[-1]["max_tokens"], provider.bodies[-1]["max_completion_tokens"]) == (300, 300)
