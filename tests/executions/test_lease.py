"""Leases on real rows: one holder at a time, by the database's clock; who lost it writes nothing any more."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction

from djinn.events.log import NewEvent
from djinn.executions import lease as leases
from djinn.executions.lease import Fenced, Keeper
from djinn.executions.models import Execution
from djinn.executions.services import drop_unclaimed, give_up, request_stop
from djinn.executions.states import ExecutionStatus, Reason
from tests.make import HOST, claimed, expire, make_execution, tell

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("home")]

FINAL = {"exited": "", "killed": "cancelled", "lost": "lost"}


def end(execution: Execution, status: str = "exited") -> None:
    Execution.objects.filter(pk=execution.pk).update(
        status=status, reason=FINAL[status], ended_at=leases.DatabaseClock(), lease_token=7
    )


def test_a_claim_raises_the_token_and_names_owner_and_host() -> None:
    execution = make_execution()
    lease = claimed(execution, owner="me", host="here")
    execution.refresh_from_db()
    assert (lease.token, execution.lease_token, execution.lease_owner, execution.host) == (1, 1, "me", "here")


def test_a_running_lease_is_not_given_to_another() -> None:
    execution = make_execution()
    claimed(execution)
    assert leases.claim(execution.pk, owner="other", host=HOST) is None


def test_an_expired_lease_is_given_to_the_next_with_a_higher_token() -> None:
    execution = make_execution()
    claimed(execution)
    expire(execution)
    assert claimed(execution).token == 2


def test_a_released_lease_can_be_claimed_at_once() -> None:
    execution = make_execution()
    claimed(execution).release()
    assert claimed(execution).token == 2


def test_a_stale_holder_releases_nothing() -> None:
    execution = make_execution()
    stale = claimed(execution)
    expire(execution)
    claimed(execution)
    stale.release()
    assert leases.claim(execution.pk, owner="third", host=HOST) is None


def test_an_execution_of_another_host_is_not_claimed_even_when_its_lease_has_expired() -> None:
    execution = make_execution()
    claimed(execution, host="there")
    expire(execution)
    assert leases.claim(execution.pk, owner="me", host="here") is None


@pytest.mark.parametrize("status", FINAL)
def test_an_execution_that_has_ended_is_not_claimed(status: str) -> None:
    execution = make_execution()
    end(execution, status)
    assert leases.claim(execution.pk, owner="me", host=HOST) is None


def test_an_execution_that_does_not_exist_is_not_claimed() -> None:
    assert leases.claim(10**9, owner="me", host=HOST) is None


def test_of_many_who_claim_at_once_one_gets_it() -> None:
    execution, barrier, won = make_execution(), threading.Barrier(8), []

    def try_it() -> None:
        try:
            barrier.wait(10)
            won.append(leases.claim(execution.pk, owner="x", host=HOST))
        finally:
            connection.close()

    threads = [threading.Thread(target=try_it) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(won) == 8
    assert [lease.token for lease in won if lease] == [1]


def test_a_write_under_a_stale_token_is_refused_and_changes_nothing() -> None:
    execution = make_execution()
    stale = claimed(execution)
    expire(execution)
    claimed(execution)
    with pytest.raises(Fenced):
        stale.write(message="from the dead")
    execution.refresh_from_db()
    assert execution.message == ""


def test_a_holder_that_was_refused_once_does_not_touch_its_container_either() -> None:
    execution = make_execution()
    stale = claimed(execution)
    expire(execution)
    claimed(execution)
    with pytest.raises(Fenced):
        stale.write(message="x")
    with pytest.raises(Fenced):
        stale.check()


def test_a_write_to_an_execution_that_has_ended_is_refused() -> None:
    execution = make_execution()
    lease = claimed(execution)
    lease.write(status="exited", ended_at=leases.DatabaseClock())
    with pytest.raises(Fenced):
        lease.write(message="late")


def test_a_holder_stops_by_its_own_clock_before_the_database_lets_another_in() -> None:
    execution = make_execution()
    before = time.monotonic()
    lease = claimed(execution)
    with connection.cursor() as cursor:
        cursor.execute("SELECT extract(epoch FROM lease_expires_at - clock_timestamp()) FROM executions_execution")
        left = float(cursor.fetchone()[0])
    assert lease.valid_until - before < left + (time.monotonic() - before)
    lease.valid_until = time.monotonic() - 0.001
    with pytest.raises(Fenced):
        lease.check()


def test_a_renewal_moves_the_end_of_the_lease(settings: Any) -> None:
    execution = make_execution()
    lease = claimed(execution)
    expire(execution)
    Keeper().renew([lease])
    lease.check()
    assert leases.claim(execution.pk, owner="other", host=HOST) is None


def test_a_renewal_tells_a_holder_whose_lease_was_taken() -> None:
    execution = make_execution()
    stale = claimed(execution)
    expire(execution)
    current = claimed(execution)
    Keeper().renew([stale])
    Keeper().renew([current])
    assert (stale.is_taken, stale.wake.is_set()) == (True, True)
    assert (current.is_taken, current.wake.is_set()) == (False, False)


def test_a_renewal_tells_of_a_requested_stop() -> None:
    execution = make_execution()
    lease = claimed(execution)
    assert request_stop(execution_id=execution.pk, reason=Reason.CANCELLED)
    Keeper().renew([lease])
    assert (lease.stop_reason, lease.wake.is_set()) == ("cancelled", True)


def test_what_is_held_is_renewed_by_itself(settings: Any) -> None:
    settings.LEASE_RENEW_SECONDS = 0.02
    execution, keeper = make_execution(), Keeper()
    lease = claimed(execution)
    first = lease.valid_until
    with keeper.holding(lease):
        deadline = time.monotonic() + 10
        while lease.valid_until == first:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    settings.LEASE_RENEW_SECONDS = 3600


# --- Intents ----------------------------------------------------------------------------------------------------------
def test_the_first_reason_to_stop_stays() -> None:
    execution = make_execution()
    request_stop(execution_id=execution.pk, reason=Reason.CANCELLED)
    request_stop(execution_id=execution.pk, reason=Reason.ERROR)
    execution.refresh_from_db()
    assert execution.stop_reason == "cancelled"


def test_an_execution_that_has_ended_is_not_asked_to_stop() -> None:
    execution = make_execution()
    end(execution)
    assert not request_stop(execution_id=execution.pk, reason=Reason.CANCELLED)


def test_what_a_worker_has_claimed_is_not_dropped() -> None:
    execution = make_execution()
    claimed(execution)
    assert not drop_unclaimed(execution=execution, reason=Reason.CANCELLED)


def test_what_was_dropped_is_not_claimed() -> None:
    execution = make_execution()
    assert drop_unclaimed(execution=execution, reason=Reason.CANCELLED)
    assert leases.claim(execution.pk, owner="late", host=HOST) is None


def test_a_host_that_was_given_up_is_fenced_when_it_comes_back() -> None:
    execution = make_execution()
    lease = claimed(execution)
    execution.refresh_from_db()
    assert give_up(execution=execution, message="its host is gone")
    with pytest.raises(Fenced):
        lease.write(message="back again")
    assert (execution.status, execution.lease_token) == (ExecutionStatus.LOST, lease.token + 1)


def test_an_execution_that_was_claimed_meanwhile_is_not_given_up() -> None:
    execution = make_execution()
    claimed(execution)
    assert not give_up(execution=execution, message="its host is gone")


# --- What the database refuses by itself ------------------------------------------------------------------------------
@pytest.mark.parametrize("status", FINAL)
@pytest.mark.parametrize(
    "change",
    [
        "status = 'starting', ended_at = NULL",
        "status = CASE status WHEN 'lost' THEN 'exited' ELSE 'lost' END",
        "reason = 'disk'",
        "outcome = '{}'",
        "lease_token = lease_token + 1",
        "journal_offset = journal_offset + 1",
        "result_snapshot = 'x'",
        "ended_at = ended_at + interval '1 s'",
    ],
)
def test_an_execution_that_has_ended_is_not_changed(status: str, change: str) -> None:
    execution = make_execution()
    end(execution, status)
    with pytest.raises(IntegrityError, match="has ended as"), connection.cursor() as cursor:
        cursor.execute(f"UPDATE executions_execution SET {change}")


def test_an_execution_that_has_ended_may_be_marked_as_collected() -> None:
    execution = make_execution()
    end(execution)
    assert Execution.objects.filter(pk=execution.pk).update(collected_at=leases.DatabaseClock()) == 1


@pytest.mark.parametrize("column", ["lease_token", "journal_offset", "journal_count"])
def test_tokens_and_offsets_never_fall(column: str) -> None:
    make_execution(**{column: 5})
    with pytest.raises(IntegrityError, match="only grow"), connection.cursor() as cursor:
        cursor.execute(f"UPDATE executions_execution SET {column} = 4")


def test_a_running_execution_never_starts_again() -> None:
    execution = make_execution()
    claimed(execution).write(status="running")
    with pytest.raises(IntegrityError, match="runs already"), connection.cursor() as cursor:
        cursor.execute("UPDATE executions_execution SET status = 'starting'")


def test_a_running_execution_has_a_lease() -> None:
    with pytest.raises(IntegrityError, match="execution_running_has_lease"):
        make_execution(status="running")


@pytest.mark.parametrize("status", FINAL)
def test_an_event_of_an_execution_that_has_ended_is_refused(status: str) -> None:
    execution = make_execution()
    end(execution, status)
    with pytest.raises(IntegrityError, match="has ended"):
        tell("test", NewEvent("text", {}, execution=execution.pk, offset=0))


def test_a_second_event_of_the_same_place_in_a_journal_is_refused() -> None:
    execution = make_execution()
    tell("test", NewEvent("text", {}, execution=execution.pk, offset=0))
    with pytest.raises(IntegrityError, match="event_journal_record_once"):
        tell("test", NewEvent("text", {"other": 1}, execution=execution.pk, offset=0))


@pytest.mark.parametrize("half", [{"execution": 1}, {"offset": 1}])
def test_an_event_with_half_a_source_is_refused(half: dict[str, int]) -> None:
    with pytest.raises(IntegrityError, match="event_has_whole_source"), transaction.atomic():
        tell("test", NewEvent("text", {}, **half))
