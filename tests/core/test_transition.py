"""One guarded UPDATE: who wins, what is refused, what the row in memory holds afterwards."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import pytest
from django.db import connection, transaction
from django.utils import timezone

from djinn.core.transition import finals, transition
from djinn.executions.lease import DatabaseClock
from djinn.executions.models import Execution
from djinn.executions.states import FINAL, MOVES, ExecutionStatus

S = ExecutionStatus
AT_ONCE = 8


def _execution() -> Execution:
    return Execution.objects.create(stream="s", image="none", timeout_seconds=60)


def test_a_status_that_nothing_leaves_is_final() -> None:
    assert finals({"a": frozenset({"b"}), "b": frozenset(), "c": frozenset()}) == {"b", "c"}


@pytest.mark.django_db
@pytest.mark.parametrize("start", S.values)
@pytest.mark.parametrize("to", S.values)
def test_a_row_moves_as_the_table_says_and_not_otherwise(start: str, to: str) -> None:
    row = _execution()
    now = timezone.now()
    ended_at = now if start in FINAL else None
    Execution.objects.filter(pk=row.pk).update(status=start, ended_at=ended_at, lease_expires_at=now)
    row.refresh_from_db()
    columns = {"ended_at": now} if to in FINAL else {}
    is_legal = to in MOVES[start]
    assert transition(row, to, moves=MOVES, **columns) is is_legal
    stored = Execution.objects.get(pk=row.pk)
    assert stored.status == row.status == (to if is_legal else start)


@pytest.mark.django_db
def test_a_condition_that_does_not_hold_leaves_row_and_object_as_they_were() -> None:
    row = _execution()
    moved = transition(row, S.LOST, moves=MOVES, where={"lease_token": 9}, message="no", ended_at=timezone.now())
    stored = Execution.objects.get(pk=row.pk)
    assert (moved, row.status, row.message, stored.status, stored.message) == (False, S.STARTING, "", S.STARTING, "")


@pytest.mark.django_db
def test_the_object_holds_what_was_set_and_what_the_database_made_of_it() -> None:
    row = _execution()
    assert transition(row, S.LOST, moves=MOVES, message="gone", ended_at=DatabaseClock())
    assert (row.status, row.message) == (S.LOST, "gone")
    assert isinstance(row.ended_at, datetime)
    assert row.ended_at == Execution.objects.get(pk=row.pk).ended_at


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("turn", range(5))
def test_of_many_who_move_a_row_at_once_one_does(turn: int) -> None:
    row = _execution()
    gate = threading.Barrier(AT_ONCE)

    def move(number: int) -> bool:
        try:
            mine = Execution.objects.get(pk=row.pk)
            gate.wait(10)
            with transaction.atomic():
                return transition(mine, S.LOST, moves=MOVES, message=str(number), ended_at=DatabaseClock())
        finally:
            connection.close()

    with ThreadPoolExecutor(AT_ONCE) as pool:
        won = [number for number, has_won in enumerate(pool.map(move, range(AT_ONCE))) if has_won]
    assert len(won) == 1
    assert Execution.objects.get(pk=row.pk).message == str(won[0])
