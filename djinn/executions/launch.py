"""Starting an execution's container, or finding the one that runs already."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from django.conf import settings

from djinn.core.faults import fault
from djinn.executions.disk import require_room
from djinn.executions.lease import Lease
from djinn.executions.models import Execution
from djinn.executions.places import execution_directory, workspace_of
from djinn.executions.states import ExecutionStatus
from djinn.executions.structured import output_schema_of
from djinn.executions.tokens import token_of
from djinn.runner.base import ContainerSpec, ContainerState, InsidePaths, Limits, Phase, Runner
from djinn.runner.git import WorkspaceError
from djinn.runner.source import Source
from djinn.runner.workspace import Workspace
from runtime_image.djinn_runtime.protocol import (
    BRIEF_NAME,
    GATEWAY_SOCKET,
    GUARD_NAME,
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

    May be repeated after a crash at any moment: the workspace is made or restored only while nothing has begun, the
    name is taken once, and the guard in the directory makes a second start do nothing. Raises `RunnerError`,
    `WorkspaceError` and `Fenced`.
    """
    if has_begun(execution, runner):
        return runner.inspect(execution.key)
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
    try:
        _write_brief(execution, execution_directory(execution), runner.paths(spec), owner=runner.owner())
    except OSError as exc:
        reason = "disk" if exc.errno in {errno.ENOSPC, errno.EDQUOT} else "error"
        raise WorkspaceError(f"the execution's directory: {exc}", permanent=True, reason=reason) from exc
    fault("brief.written")
    lease.check()
    runner.start(spec)
    fault("container.started")
    return runner.inspect(execution.key)


def has_begun(execution: Execution, runner: Runner) -> bool:
    """Whether anybody has ever started its container; raises `RunnerError` when that cannot be known."""
    guard = execution_directory(execution) / GUARD_NAME
    return guard.exists() or runner.inspect(execution.key).phase in {Phase.RUNNING, Phase.EXITED}


def specification(execution: Execution) -> ContainerSpec:
    """What the runner is asked for."""
    resources = execution.resources
    return ContainerSpec(
        execution=execution.key,
        image=execution.image_id,
        workspace=_tree(execution),
        execution_directory=execution_directory(execution),
        gateway_directory=settings.INSTALLATION.gateway_directory,
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
    """Stop what may still write to the lane: containers of executions that did not end by themselves."""
    others = Execution.objects.filter(workspace=execution.workspace, lane=execution.lane, collected_at=None)
    for other in others.exclude(pk=execution.pk).exclude(status=ExecutionStatus.EXITED):
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
    return execution_directory(execution) / "workspace"


def _write_brief(execution: Execution, directory: Path, inside: InsidePaths, *, owner: tuple[int, int] | None) -> None:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    places = [directory]
    if not execution.workspace:
        _tree(execution).mkdir(exist_ok=True)
        places.append(_tree(execution))
    path = directory / BRIEF_NAME
    fresh = path.with_name(f".{BRIEF_NAME}.{os.getpid()}")
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(dump_brief(brief_of(execution, inside)))
    os.replace(fresh, path)
    if owner is not None:
        for place in (path, *places):
            os.chown(place, *owner, follow_symlinks=False)


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
