"""No number of calls at once goes over a budget; what a call did not use is given back."""

from __future__ import annotations

import threading
from decimal import Decimal

import pytest
from django.db import IntegrityError, connection, transaction

from djinn.providers.base import CallContext
from djinn.providers.budgets import BudgetExceeded, hold, most_input_tokens, open_budget
from djinn.providers.catalogue import parse_model
from djinn.providers.models import Budget, ModelCall
from djinn.providers.services import CallEnd, close_call, close_forsaken, open_call
from djinn.providers.usage import Usage

pytestmark = pytest.mark.django_db(transaction=True)
GPT = parse_model("openai/gpt-5")
BODY = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1000}
READ = most_input_tokens(BODY)


def context(*scopes: str) -> CallContext:
    return CallContext(7, "ada", "FIX", 1, scopes)


def ended(call: ModelCall, usage: Usage | None) -> ModelCall:
    return close_call(call, CallEnd(ModelCall.Status.ANSWERED, usage=usage, seconds=1.0))


def test_fifty_calls_at_once_hold_no_more_than_the_budget() -> None:
    open_budget(scope="run-1", usd=None, tokens=10 * (READ + 1000) + 5)
    body = {**BODY, "max_tokens": 1000}
    allowed: list[int] = []

    def ask() -> None:
        try:
            _, held = open_call(name=GPT, context=context("run-1"), body=body)
            allowed.append(held.tokens)
        except BudgetExceeded:
            pass
        finally:
            connection.close()

    threads = [threading.Thread(target=ask) for _ in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    budget = Budget.objects.get()
    assert sum(allowed) == budget.held_tokens <= budget.limit_tokens
    assert len(allowed) >= 10
    for call in ModelCall.objects.all():
        ended(call, None)
    budget.refresh_from_db()
    assert (budget.held_tokens, budget.used_tokens) == (0, sum(allowed))


def test_what_a_call_did_not_use_is_given_back() -> None:
    open_budget(scope="run-1", usd=Decimal(1), tokens=100_000)
    call, held = open_call(name=GPT, context=context("run-1"), body=BODY)
    assert (held.tokens, held.output_tokens) == (READ + 1000, 1000)
    ended(call, Usage(10, 20))
    budget = Budget.objects.get()
    assert (budget.held_tokens, budget.used_tokens, budget.held_usd) == (0, 30, 0)
    assert budget.used_usd == ModelCall.objects.get().cost_usd > 0


def test_a_call_is_booked_once_however_often_it_ends() -> None:
    open_budget(scope="run-1", usd=None, tokens=100_000)
    call, _ = open_call(name=GPT, context=context("run-1"), body=BODY)
    ended(call, Usage(10, 20))
    ended(call, Usage(10, 20))
    assert Budget.objects.get().used_tokens == 30


def test_an_answer_is_made_shorter_before_a_call_is_refused() -> None:
    open_budget(scope="run-1", usd=None, tokens=READ + 600)
    held = hold(GPT, BODY, ["run-1"])
    assert held.output_tokens == 500
    with pytest.raises(BudgetExceeded, match="run-1 has 100 of"):
        hold(GPT, BODY, ["run-1"])


def test_a_call_counts_in_every_budget_or_in_none() -> None:
    open_budget(scope="run-1", usd=None, tokens=100_000)
    open_budget(scope="run-2", usd=None, tokens=10)
    with pytest.raises(BudgetExceeded):
        open_call(name=GPT, context=context("run-1", "run-2", "run-3"), body=BODY)
    assert Budget.objects.get(scope="run-1").held_tokens == 0
    assert ModelCall.objects.count() == 0


def test_an_unknown_price_is_refused_by_a_budget_in_dollars_and_counted_in_tokens() -> None:
    unknown = parse_model("openai/nobody-knows")
    open_budget(scope="run-1", usd=Decimal(5), tokens=None)
    with pytest.raises(BudgetExceeded, match="the price of openai/nobody-knows is unknown"):
        open_call(name=unknown, context=context("run-1"), body=BODY)
    open_budget(scope="run-2", usd=None, tokens=100_000)
    open_call(name=unknown, context=context("run-2"), body=BODY)
    assert Budget.objects.get(scope="run-2").held_tokens == READ + 1000


def test_a_call_that_its_gateway_forsook_counts_as_the_most_that_it_could_cost() -> None:
    open_budget(scope="run-1", usd=None, tokens=100_000)
    open_call(name=GPT, context=context("run-1"), body=BODY)
    assert close_forsaken([7]) == 1
    budget = Budget.objects.get()
    assert (budget.held_tokens, budget.used_tokens) == (0, READ + 1000)
    assert ModelCall.objects.get().status == "abandoned"


def test_the_database_refuses_a_budget_that_is_overspent() -> None:
    open_budget(scope="run-1", usd=None, tokens=10)
    with pytest.raises(IntegrityError), transaction.atomic():
        Budget.objects.update(held_tokens=11)


def test_there_are_never_more_tokens_than_bytes() -> None:
    body = {"messages": [{"role": "user", "content": "日本"}], "tools": [], "stream": True}
    assert most_input_tokens(body) > len("日本".encode())


def test_a_call_that_was_refused_is_booked_with_nothing() -> None:
    open_budget(scope="run-1", usd=Decimal(1), tokens=100_000)
    call, _ = open_call(name=GPT, context=context("run-1"), body=BODY)
    close_call(call, CallEnd(ModelCall.Status.FAILED, error="slow down", is_free=True))
    budget = Budget.objects.get()
    assert (budget.held_tokens, budget.used_tokens, budget.held_usd, budget.used_usd) == (0, 0, 0, 0)


def test_a_call_that_used_more_than_was_held_is_booked_as_it_is_when_there_is_room() -> None:
    open_budget(scope="run-1", usd=Decimal(100), tokens=100_000)
    call, held = open_call(name=GPT, context=context("run-1"), body=BODY)
    ended(call, Usage(10, held.tokens))
    budget = Budget.objects.get()
    assert (budget.used_tokens, budget.is_exhausted) == (10 + held.tokens, False)
    assert budget.used_usd == ModelCall.objects.get().cost_usd > held.usd


def test_nothing_fits_into_a_budget_that_a_call_has_overspent_whatever_others_give_back() -> None:
    open_budget(scope="run-1", usd=None, tokens=2 * (READ + 1000))
    greedy, held = open_call(name=GPT, context=context("run-1"), body=BODY)
    modest, _ = open_call(name=GPT, context=context("run-1"), body=BODY)
    ended(greedy, Usage(10, held.tokens))
    ended(modest, Usage(0, 0))
    budget = Budget.objects.get()
    assert (budget.used_tokens, budget.held_tokens, budget.is_exhausted) == (held.tokens, 0, True)
    with pytest.raises(BudgetExceeded, match="run-1 is exhausted"):
        open_call(name=GPT, context=context("run-1"), body=BODY)
