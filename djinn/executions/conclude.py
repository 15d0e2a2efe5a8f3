"""The end of an execution: the rest of its journal, a snapshot of the workspace, and the final state."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import structlog
from django.conf import settings
from django.db import transaction

from djinn.core.faults import fault
from djinn.executions.ending import Ending, ending_of
from djinn.executions.lease import DatabaseClock, Lease
from djinn.executions.models import Artifact, Execution
from djinn.executions.places import close_door, workspace_of
from djinn.executions.relay import Relay
from djinn.executions.services import request_stop
from djinn.executions.states import ExecutionStatus, Reason
from djinn.executions.structured import checked
from djinn.runner.artifacts import Artifact as KeptFile
from djinn.runner.artifacts import collect
from djinn.runner.base import ContainerState, Phase, RunnerError
from djinn.runner.diff import Diff
from djinn.runner.git import WorkspaceError
from djinn.runner.journal import JournalRefused
from djinn.runner.workspace import Workspace

log = structlog.get_logger(__name__)

BATCHES_OF_OVERUSE = 20
"""What is still read of a journal that may be what has filled the disk."""


def conclude(
    execution: Execution,
    lease: Lease,
    relay: Relay,
    state: ContainerState,
    *,
    stop_reason: str,
    failure: RunnerError | WorkspaceError | None,
    overuse: str = "",
) -> None:
    """Make the execution final. Raises `Fenced` when another worker took over meanwhile, and database errors.

    `overuse` says what it has used too much of on the disk: that is its ending then, and its tree is removed.
    """
    if not isinstance(failure, JournalRefused):
        try:
            relay.ship_all(most_batches=BATCHES_OF_OVERUSE if overuse else None)
        except JournalRefused as exc:
            failure = failure or exc
    if overuse:
        ending = Ending(ExecutionStatus.KILLED, Reason.DISK, overuse)
    else:
        ending = checked(_ending(execution, state, stop_reason=stop_reason, failure=failure), execution)
    kept: dict[str, Any] = {}
    files: tuple[KeptFile, ...] = ()
    if overuse:
        request_stop(execution_id=execution.pk, reason=Reason.DISK)  # whoever concludes after us finds no tree
        _give_back(execution, lease)
    elif execution.workspace and execution.base_snapshot:
        try:
            _require_still(state)
            kept = _keep_workspace(execution, lease, is_still=state.phase is Phase.EXITED)
            files = () if ending.reason else _keep_artifacts(execution, lease)
        except WorkspaceError as exc:
            ending = _without_workspace(ending, exc)
    _finish(execution, lease, ending, state, kept, files)
    close_door(execution)
    log.info("execution_ended", status=str(ending.status), reason=str(ending.reason))


def _give_back(execution: Execution, lease: Lease) -> None:
    """Remove the tree: a snapshot of it would take the same once more, and the next attempt would begin as full."""
    if not execution.workspace:
        return
    lease.check()
    try:
        workspace_of(execution).remove_tree()
    except WorkspaceError as exc:  # whoever works there next restores it
        log.warning("tree_not_removed", error=str(exc))


def _require_still(state: ContainerState) -> None:
    """No git runs in a tree that something may be writing to: it could be led out of it between two looks."""
    if state.phase is Phase.RUNNING:
        raise WorkspaceError("the container cannot be stopped, it may be running on", permanent=False, reason="runner")


def _without_workspace(ending: Ending, exc: WorkspaceError) -> Ending:
    """A success whose files are lost is none; what went wrong before that stays the reason."""
    text = f"the workspace could not be kept: {exc}"
    if not ending.reason:
        status = ExecutionStatus.EXITED if exc.permanent else ExecutionStatus.LOST
        return Ending(status, Reason(exc.reason), text)
    return replace(ending, message=f"{ending.message}; {text}")


def _finish(
    execution: Execution,
    lease: Lease,
    ending: Ending,
    state: ContainerState,
    kept: dict[str, Any],
    files: tuple[KeptFile, ...],
) -> None:
    if ending.reason == Reason.FORGED:
        kept["outcome"] = None  # what it says must not be read by anybody as the step's outputs
    with transaction.atomic():
        lease.write(
            status=ending.status,
            reason=ending.reason,
            message=ending.message,
            exit_code=state.exit_code,
            ended_at=DatabaseClock(),
            **kept,
        )
        Artifact.objects.bulk_create(
            Artifact(execution=execution, path=file.path, size=file.size, digest=file.sha256) for file in files
        )
        fault("conclude.before_commit")
    fault("conclude.after_commit")


def _ending(
    execution: Execution, state: ContainerState, *, stop_reason: str, failure: RunnerError | WorkspaceError | None
) -> Ending:
    if isinstance(failure, JournalRefused) and not execution.forged:  # also when it had told an end before
        return Ending(ExecutionStatus.LOST, Reason(failure.reason), str(failure))
    if failure is not None and execution.outcome is None and not execution.forged:
        if stop_reason == Reason.CANCELLED:
            return Ending(ExecutionStatus.KILLED, Reason.CANCELLED, "it was cancelled while it could not be started")
        return Ending(ExecutionStatus.LOST, Reason(failure.reason), str(failure))
    return ending_of(
        outcome=execution.outcome,
        state=state,
        stop_reason=stop_reason,
        was_ready=execution.status == ExecutionStatus.RUNNING,
        forged=execution.forged,
    )


def _keep_workspace(execution: Execution, lease: Lease, *, is_still: bool) -> dict[str, Any]:
    """Take the snapshot and the two diffs that people look at."""
    workspace = workspace_of(execution)
    fault("conclude.before_snapshot")
    lease.check()
    message = f"after {execution.step or 'execution'} ({execution.pk})"
    snapshot = workspace.snapshot(message, parent=execution.base_snapshot, is_still=is_still)
    fault("conclude.after_snapshot")
    own = _diff(workspace, execution.base_snapshot, snapshot)
    is_first = execution.base_snapshot == execution.origin_snapshot
    whole = own if is_first else _diff(workspace, execution.origin_snapshot, snapshot)
    return {
        "result_snapshot": snapshot,
        "diff": own.text,
        "run_diff": whole.text,
        "changes": [asdict(change) for change in own.files],
    }


def _keep_artifacts(execution: Execution, lease: Lease) -> tuple[KeptFile, ...]:
    """Copy the files that the step leaves behind; its container has ended, so nothing changes them meanwhile."""
    if not execution.artifacts:
        return ()
    lease.check()
    return collect(workspace_of(execution).tree, execution.artifacts, settings.INSTALLATION.artifacts)


def _diff(workspace: Workspace, before: str, after: str) -> Diff:
    """The difference of two snapshots; git is not asked about a snapshot and itself."""
    return Diff("", (), is_cut=False) if before == after else workspace.diff(before, after)
