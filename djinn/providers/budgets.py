"""Budgets: the most that a call can cost is held back before it is sent, so that no number of calls at once goes over.

Holding back is one guarded UPDATE a budget, in the order of their names; what the call did not use is given back when
it has ended. A call of which nobody knows what it used counts as the most that it could.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

import structlog
from django.db import connection, transaction

from djinn.core.errors import AppError
from djinn.providers.base import Body
from djinn.providers.bounded import check_bounded, wanted_output
from djinn.providers.catalogue import ModelName
from djinn.providers.models import Budget, ModelCall
from djinn.providers.usage import Usage, cost_usd

log = structlog.get_logger(__name__)

MOST_OUTPUT_TOKENS = 8192
"""What a call may answer at most when neither it nor its budget says less."""
LEAST_OUTPUT_TOKENS = 256
"""An answer that could only be shorter than this is not asked for."""
TOKENS_A_MESSAGE = 16
"""For the words that a provider puts around each message."""
HOLD = """
UPDATE providers_budget SET held_usd = held_usd + %(usd)s, held_tokens = held_tokens + %(tokens)s
 WHERE scope = %(scope)s
   AND (limit_usd IS NULL OR used_usd + held_usd + %(usd)s <= limit_usd)
   AND (limit_tokens IS NULL OR used_tokens + held_tokens + %(tokens)s <= limit_tokens)
   AND NOT is_exhausted
"""
BOOK = """
UPDATE providers_budget SET
       held_usd = held_usd - %(held_usd)s, held_tokens = held_tokens - %(held_tokens)s,
       used_usd = LEAST(used_usd + %(usd)s, limit_usd - held_usd + %(held_usd)s),
       used_tokens = LEAST(used_tokens + %(tokens)s, limit_tokens - held_tokens + %(held_tokens)s),
       is_exhausted = is_exhausted
         OR COALESCE(used_usd + %(usd)s > limit_usd - held_usd + %(held_usd)s, FALSE)
         OR COALESCE(used_tokens + %(tokens)s > limit_tokens - held_tokens + %(held_tokens)s, FALSE)
 WHERE scope = %(scope)s
"""
"""LEAST passes over a limit that is NULL. What stands behind the signs of assignment are the values before."""


class BudgetExceeded(AppError):
    """A call does not fit into a budget any more; the text says into which, and how much is left."""


@dataclass(frozen=True)
class Held:
    """What was held back for a call, in which budgets, and how long its answer may be; None is as it asked."""

    scopes: tuple[str, ...] = ()
    usd: Decimal = Decimal(0)
    tokens: int = 0
    output_tokens: int | None = None


def open_budget(*, scope: str, usd: Decimal | None, tokens: int | None) -> Budget:
    """A budget for a scope that had none."""
    return Budget.objects.create(scope=scope, limit_usd=usd, limit_tokens=tokens)


def hold(name: ModelName, body: Body, scopes: Sequence[str]) -> Held:
    """Hold back what the call can cost at most, with a shorter answer when only that fits.

    Raises `BudgetExceeded`, and `Unbounded` for a request whose cost has no bound.
    """
    budgets = list(Budget.objects.filter(scope__in=scopes).order_by("scope"))
    if not budgets:
        return Held()
    check_bounded(body)
    read, wanted = most_input_tokens(body), wanted_output(body, MOST_OUTPUT_TOKENS)
    while True:
        held = _priced(name, budgets, read, wanted)
        if _hold(held):
            return held
        if wanted <= LEAST_OUTPUT_TOKENS:
            raise BudgetExceeded(_too_small(held))
        wanted = max(LEAST_OUTPUT_TOKENS, wanted // 2)


def give_back(call: ModelCall, *, tokens: int | None, usd: Decimal | None) -> None:
    """Book what an ended call used in the budgets that it was held in, in the caller's transaction.

    None is the most that it could use. A call that used even more is booked as far as there is room; where there is
    not enough, the budget is exhausted: nothing fits into it any more, whatever other calls give back.
    """
    tokens = call.held_tokens if tokens is None else tokens
    usd = call.held_usd if usd is None else usd
    if call.budgets and (tokens > call.held_tokens or usd > call.held_usd):
        log.error("call_used_more_than_held", call=call.pk, tokens=tokens, held=call.held_tokens, usd=str(usd))
    values: dict[str, Decimal | int | str] = {
        "usd": usd,
        "tokens": tokens,
        "held_usd": call.held_usd,
        "held_tokens": call.held_tokens,
    }
    with connection.cursor() as cursor:
        for scope in sorted(call.budgets):
            cursor.execute(BOOK, {**values, "scope": scope})


def most_input_tokens(body: Body) -> int:
    """More than the request can be in tokens: no tokenizer makes more tokens than there are bytes."""
    return len(json.dumps(body, ensure_ascii=False).encode(errors="surrogatepass")) + TOKENS_A_MESSAGE * len(
        body.get("messages", [])
    )


def _priced(name: ModelName, budgets: list[Budget], read: int, wanted: int) -> Held:
    cost = cost_usd(name.provider, name.model, Usage(input=read, output=wanted))
    in_money = [budget for budget in budgets if budget.limit_usd is not None]
    if cost is None and in_money:
        text = f"the price of {name.provider}/{name.model} is unknown, so a budget in dollars cannot be kept"
        raise BudgetExceeded(f"{text}; give {in_money[0].scope} a budget in tokens")
    return Held(tuple(budget.scope for budget in budgets), cost or Decimal(0), read + wanted, wanted)


def _hold(held: Held) -> bool:
    """All of the budgets or none."""
    with transaction.atomic(), connection.cursor() as cursor:
        for scope in held.scopes:
            cursor.execute(HOLD, {"scope": scope, "usd": held.usd, "tokens": held.tokens})
            if not cursor.rowcount:
                transaction.set_rollback(True)
                return False
    return True


def _too_small(held: Held) -> str:
    words = []
    for budget in Budget.objects.filter(scope__in=held.scopes).order_by("scope"):
        if budget.is_exhausted:
            words.append(f"{budget.scope} is exhausted: a call has used more of it than there was")
            continue
        left = []
        if budget.limit_usd is not None:
            left.append(f"{budget.limit_usd - budget.used_usd - budget.held_usd} of {budget.limit_usd} US dollars")
        if budget.limit_tokens is not None:
            left.append(
                f"{budget.limit_tokens - budget.used_tokens - budget.held_tokens} of {budget.limit_tokens} tokens"
            )
        words.append(f"{budget.scope} has {' and '.join(left)} left")
    return f"the call could cost {held.usd} US dollars and {held.tokens} tokens: {'; '.join(words)}"
