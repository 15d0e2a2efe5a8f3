"""Sums over the bill."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from django.db.models import Count, Q, QuerySet, Sum

from djinn.providers.models import ModelCall


@dataclass(frozen=True)
class Bill:
    """What some executions used. `cost_usd` is None when any call's cost is unknown."""

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    cost_usd: Decimal | None = Decimal(0)

    @property
    def tokens(self) -> int:
        return self.input_tokens + self.output_tokens


_SUMS = {
    "calls": Count("pk"),
    "unknown": Count("pk", filter=Q(cost_usd__isnull=True)),
    "input": Sum("input_tokens", default=0),
    "output": Sum("output_tokens", default=0),
    "cost": Sum("cost_usd", default=Decimal(0)),
}


def bills_of(executions: Iterable[int]) -> dict[int, Bill]:
    """The bill of each execution that made a call."""
    rows = ModelCall.objects.filter(execution__in=list(executions)).values("execution").annotate(**_SUMS)
    return {row["execution"]: _bill(row) for row in rows}


def bill_of_all(executions: QuerySet[Any, Any]) -> Bill:
    """One bill of all these executions, which are a query of their numbers."""
    return _bill(ModelCall.objects.filter(execution__in=executions).aggregate(**_SUMS))


def _bill(row: Mapping[str, Any]) -> Bill:
    return Bill(row["calls"], row["input"], row["output"], None if row["unknown"] else row["cost"])


def add_bills(bills: Iterable[Bill]) -> Bill:
    """Their sum; unknown costs stay unknown."""
    total = Bill()
    for bill in bills:
        known = total.cost_usd is not None and bill.cost_usd is not None
        cost = total.cost_usd + bill.cost_usd if known else None  # type: ignore[operator]  # both are known
        total = Bill(
            total.calls + bill.calls,
            total.input_tokens + bill.input_tokens,
            total.output_tokens + bill.output_tokens,
            cost,
        )
    return total
