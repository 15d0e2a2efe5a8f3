"""Starting an execution's container, or finding the one that runs already."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db.models import Q

from djinn.core.faults import fault
from djinn.executions.directory import OWN_TREE, has_journal, lay_out
from djinn.executions.disk import require_room
from djinn.executions.lease import DatabaseClock, Lease
from djinn.executions.models import Execution
from djinn.executions.places import door_of, execution_directory, open_door, workspace_of
from djinn.executions.states import ExecutionStatus
from djinn.executions.structured import output_schema_of
from djinn.executions.tokens import token_of
from djinn.runner.base import ContainerSpec, ContainerState, InsidePaths, Limits, Phase, Runner, StartRefused
from djinn.runner.git import WorkspaceError
from djinn.runner.source import Source
from djinn.runner.workspace import Workspace
from runtime_image.djinn_runtime.protocol import (
    GATEWAY_SOCKET,
    AgentBrief,
    Brief,
    dump_brief,
)

WORKSPACE_MARK = "%WORKSPACE%"
"""Stands in an order's text for the workspace's path, which only the runner knows."""


def launch(
    execution: Execution, lease: Lease, runner: Runner, *, is_full: Callable[[], bool] | None = None
) -> ContainerState:
    """Bring the container to life unless it was before; where it is afterwards.

    `is_full` is asked while its workspace is fetched, and ends that.

    May be repeated after a crash at any moment: the workspace is made or restored only while nothing has begun, that
    it may begin is stored before the start, and the engine takes the container's name once. Raises `RunnerError`,
    `WorkspaceError` and `Fenced`.
    """
    state = runner.inspect(execution.key)
    if has_begun(execution, state):
        return state
    require_room()
    image_id = execution.image_id or runner.resolve_image(execution.image)
    columns = {"image_id": image_id, "runner": runner.name}
    if execution.workspace:
        columns |= _made_workspace(execution, lease, runner, is_full)
        fault("workspace.made")
    lease.check()
    lease.write(**columns)
    for name, value in columns.items():
        setattr(execution, name, value)
    spec = specification(execution)
    lease.check()
    _lay_out(execution, runner, spec)
    fault("brief.written")
    lease.write(launched_at=DatabaseClock())
    fault("launch.written")
    lease.check()
    open_door(execution)
    _start(execution, runner, spec)
    fault("container.started")
    return runner.inspect(execution.key)


def has_begun(execution: Execution, state: ContainerState) -> bool:
    """Whether its work may have begun, so that it is never started any more.

    The row and the engine say so. What the container can write is asked as well, but it can only say yes: a container
    that was removed from the engine, and whose journal nobody has read yet, did begin.
    """
    is_known = execution.ready_at is not None or execution.journal_offset > 0
    is_there = state.phase in {Phase.RUNNING, Phase.EXITED}
    return is_known or is_there or has_journal(execution_directory(execution))


def _start(execution: Execution, runner: Runner, spec: ContainerSpec) -> None:
    """One that the engine cannot start is left to its journal when it has one: it ran before its engine lost it."""
    try:
        runner.start(spec)
    except StartRefused:
        if not has_journal(spec.execution_directory):
            raise


def specification(execution: Execution) -> ContainerSpec:
    """What the runner is asked for."""
    resources = execution.resources
    return ContainerSpec(
        execution=execution.key,
        image=execution.image_id,
        workspace=_tree(execution),
        execution_directory=execution_directory(execution),
        gateway_directory=door_of(execution),
        runtime_directory=settings.RUNTIME_DIRECTORY,
        deadline_seconds=execution.timeout_seconds,
        network="bridge" if execution.network == "bridge" else "none",
        limits=Limits(
            cpus=float(resources.get("cpus", 1.0)),
            memory_bytes=int(resources.get("memory_mb", 1024)) * 1024**2,
            pids=int(resources.get("pids", 256)),
        ),
    )


def _made_workspace(
    execution: Execution, lease: Lease, runner: Runner, is_full: Callable[[], bool] | None
) -> dict[str, str]:
    """Make the lane's tree what it has to be when this execution begins: what its bases have left, put together.

    The columns that say so.
    """
    workspace = workspace_of(execution)
    lease.check()
    if execution.forked_from:
        workspace.fork(settings.INSTALLATION.workspaces / execution.forked_from)
    origin = workspace.prepare(Source(**execution.source), allowed_hosts=settings.REPOSITORY_HOSTS, is_full=is_full)
    base = execution.base_snapshot or _merged(workspace, execution) or origin
    lease.check()
    _clear_lane(execution, runner)
    workspace.restore(base)
    workspace.stir()
    return {"origin_snapshot": origin, "base_snapshot": base}


def _clear_lane(execution: Execution, runner: Runner) -> None:
    """Stop what may still write to the lane: containers of executions that were not seen to end by themselves."""
    others = Execution.objects.filter(workspace=execution.workspace, lane=execution.lane, collected_at=None)
    # One that told its end, and that the engine was not seen to have ended, may still write.
    ended = Q(status=ExecutionStatus.EXITED, exit_code__isnull=False)
    for other in others.exclude(pk=execution.pk).exclude(ended):
        if runner.inspect(other.key).phase is Phase.RUNNING:
            runner.stop(other.key, settings.STOP_GRACE_SECONDS)


def _merged(workspace: Workspace, execution: Execution) -> str:
    """One snapshot with what all bases have changed; empty when there are none."""
    if not execution.bases:
        return ""
    return workspace.merge(execution.bases, f"before {execution.step or 'execution'}")


def _tree(execution: Execution) -> Path:
    if execution.workspace:
        return workspace_of(execution).tree
    return execution_directory(execution) / OWN_TREE


def _lay_out(execution: Execution, runner: Runner, spec: ContainerSpec) -> None:
    brief = dump_brief(brief_of(execution, runner.paths(spec)))
    try:
        lay_out(spec.execution_directory, brief, owner=runner.owner(), has_own_tree=not execution.workspace)
    except OSError as exc:
        reason = "disk" if exc.errno in {errno.ENOSPC, errno.EDQUOT} else "error"
        raise WorkspaceError(f"the execution's directory: {exc}", permanent=True, reason=reason) from exc


def brief_of(execution: Execution, inside: InsidePaths) -> Brief:
    """The execution's order with its token and with paths as they are inside."""
    order: dict[str, Any] = dict(execution.order)
    agent = order.pop("agent", None)
    if agent is not None:
        system = agent["system"].replace(WORKSPACE_MARK, inside.workspace)
        agent = AgentBrief(**{**agent, "system": system, "output_schema": output_schema_of(execution)})
    return Brief(
        execution=execution.key,
        token=token_of(execution.pk),
        workspace=inside.workspace,
        gateway_socket=f"{inside.gateway_directory}/{GATEWAY_SOCKET}",
        deadline_seconds=execution.timeout_seconds,
        agent=agent,
        **order,
    )
