"""The bill: a row before a call is sent, completed when it ended."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from decimal import Decimal

from django.db import transaction

from djinn.core.errors import AppError
from djinn.providers.base import Body, CallContext
from djinn.providers.budgets import Held, give_back, hold
from djinn.providers.catalogue import ModelName, label_of
from djinn.providers.faults import DOUBTFUL
from djinn.providers.models import ModelCall
from djinn.providers.usage import Usage, cost_usd

MOST_DOUBTS = 5
"""So many answers in a row may be of no use, each of them perhaps paid for."""


class TooManyDoubts(AppError):
    """The execution's calls have come to nothing too often: it gets no other one. The text is for people."""


@dataclass(frozen=True)
class CallEnd:
    """How a call ended. Without a usage it counts as the most that it could cost, unless it was free."""

    status: ModelCall.Status
    usage: Usage | None = None
    is_partial: bool = False
    """The usage is that of a beginning: what the call used is at least that, and its cost is unknown."""
    seconds: float = 0
    first_token_seconds: float | None = None
    error: str = ""
    fault: str = ""
    is_free: bool = False
    """The provider has refused it, or was never reached."""


@transaction.atomic
def open_call(*, name: ModelName, context: CallContext, body: Body) -> tuple[ModelCall, Held]:
    """The row of a call that is about to be sent, and what was held back for it.

    Raises what `hold` raises, and `TooManyDoubts`: the runtime in a container counts as well, but may be another one.
    """
    refuse_doubts(name, context.execution)
    held = hold(name, body, context.budgets)
    call = ModelCall.objects.create(
        execution=context.execution,
        provider=name.provider,
        model=name.model,
        agent=context.agent,
        budgets=list(held.scopes),
        held_usd=held.usd,
        held_tokens=held.tokens,
    )
    return call, held


def refuse_doubts(name: ModelName, execution: int) -> None:
    """Raise `TooManyDoubts` when too many calls have been doubtful since the last one that was answered.

    Calls that were refused, and those that the container left, make no difference.
    """
    calls = ModelCall.objects.filter(execution=execution)
    answered = calls.filter(status=ModelCall.Status.ANSWERED).order_by("-pk").values_list("pk", flat=True).first()
    doubtful = calls.filter(pk__gt=answered or 0, fault__in=DOUBTFUL).order_by("-pk")[:MOST_DOUBTS]
    errors = list(doubtful.values_list("error", flat=True))
    if len(errors) == MOST_DOUBTS:
        text = f"{MOST_DOUBTS} answers of {label_of(name.provider)} in a row were of no use. The last one: {errors[0]}"
        raise TooManyDoubts(f"{text} Restart the run when the provider is well again, or with another model.")


def close_forsaken(executions: Collection[int]) -> int:
    """Complete the calls of executions that have ended, which a gateway that died has left open; how many."""
    calls = ModelCall.objects.filter(execution__in=executions, status=ModelCall.Status.OPEN)
    for call in calls:
        close_call(call, CallEnd(ModelCall.Status.ABANDONED, error="the gateway ended before the call did"))
    return len(calls)


@transaction.atomic
def close_call(call: ModelCall, end: CallEnd) -> ModelCall:
    """Complete the row and book it in its budgets, once. Without a usage, tokens and cost stay NULL."""
    locked = ModelCall.objects.select_for_update().get(pk=call.pk)
    if locked.status != ModelCall.Status.OPEN:
        return locked
    call.status, call.error, call.fault = end.status, end.error[:2000], end.fault
    call.seconds, call.first_token_seconds = end.seconds, end.first_token_seconds
    if end.usage is not None:
        call.input_tokens, call.output_tokens, call.cached_tokens = end.usage.input, end.usage.output, end.usage.cached
        call.cost_usd = None if end.is_partial else cost_usd(call.provider, call.model, end.usage)
    call.save(
        update_fields=[
            "status", "error", "fault", "seconds", "first_token_seconds",
            "input_tokens", "output_tokens", "cached_tokens", "cost_usd",
        ]
    )  # fmt: skip
    if end.is_free:
        give_back(call, tokens=0, usd=Decimal(0))
    elif end.usage is None or end.is_partial:
        used = 0 if end.usage is None else end.usage.input + end.usage.output
        give_back(call, tokens=max(used, call.held_tokens), usd=None)
    else:
        give_back(call, tokens=end.usage.input + end.usage.output, usd=call.cost_usd)
    return call
