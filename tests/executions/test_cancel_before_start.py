"""A cancel between a worker's death and the adoption: what has not begun does not begin any more."""

from __future__ import annotations

import pytest

from djinn.executions.launch import launch
from djinn.executions.models import Execution
from djinn.executions.places import execution_directory, present_runner
from djinn.executions.services import request_stop
from djinn.executions.states import ExecutionStatus, Reason
from djinn.executions.supervise import see_through
from djinn.runner.base import Phase
from runtime_image.djinn_runtime.protocol import GUARD_NAME
from tests.make import claimed, expire, make_execution, played

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("home")]


def adopted(execution: Execution) -> Execution:
    """The execution as the next worker leaves it, after it was cancelled."""
    expire(execution)
    request_stop(execution_id=execution.pk, reason=Reason.CANCELLED)
    see_through(claimed(execution, owner="next"), present_runner())
    execution.refresh_from_db()
    return execution


def test_an_execution_whose_worker_died_before_its_start_is_not_started_after_a_cancel() -> None:
    execution = make_execution(order={"mode": "command", "script": played()})
    claimed(execution).write(image_id="none", runner="stub")  # and then its worker died
    ended = adopted(execution)
    assert (ended.status, ended.reason) == (ExecutionStatus.KILLED, Reason.CANCELLED)
    assert not (execution_directory(execution) / GUARD_NAME).exists()


def test_an_execution_that_had_begun_is_stopped_after_a_cancel() -> None:
    execution = make_execution(order={"mode": "command", "script": played(hold=True)})
    lease = claimed(execution)
    lease.write(image_id="none", runner="stub")
    launch(execution, lease, present_runner())
    ended = adopted(execution)
    assert (ended.status, ended.reason) == (ExecutionStatus.KILLED, Reason.CANCELLED)
    assert present_runner().inspect(execution.key).phase is Phase.EXITED
