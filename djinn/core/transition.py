"""How a status changes: one guarded UPDATE, so that of two who want to move a row only one does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.db.models import Model

Moves = Mapping[str, frozenset[str]]
"""Legal moves: from each status, where it may go. A status without an entry, or with an empty one, is final."""


def finals(moves: Moves) -> frozenset[str]:
    """The statuses that nothing leaves."""
    return frozenset(status for status, targets in moves.items() if not targets)


def transition(row: Model, to: str, *, moves: Moves, where: Mapping[str, Any] | None = None, **columns: Any) -> bool:
    """Move the row to the status `to` and set `columns`, if its present status and `where` allow it.

    One UPDATE; PostgreSQL evaluates its condition again on the newest version of a row that it had to wait for. False
    means that someone else was first, or that the move is not legal: the row in memory is then left as it was. Call it
    in the transaction that appends the move's event.
    """
    sources = [status for status, targets in moves.items() if to in targets]
    rows = type(row)._default_manager.filter(pk=row.pk, status__in=sources, **(where or {}))
    if not rows.update(status=to, **columns):
        return False
    for name, value in {"status": to, **columns}.items():
        if hasattr(value, "resolve_expression"):
            row.__dict__.pop(name, None)  # an expression has its value in the database: read when it is asked for
        else:
            setattr(row, name, value)
    return True
