"""The bounds of an execution's disk space: what they are, who watches them, and what people are told."""

from __future__ import annotations

import os
from pathlib import Path

import structlog
from django.conf import settings

from djinn.executions.lease import Lease
from djinn.executions.models import Execution
from djinn.executions.places import execution_directory, workspace_of
from djinn.runner.base import Runner, RunnerError
from djinn.runner.disk_watch import DiskWatch
from djinn.runner.git import WorkspaceError
from djinn.runner.processes import Identity
from djinn.runner.room import has_project_quotas, room_at
from djinn.runner.usage import Usage
from djinn.runner.watched import Overuse, Watched

log = structlog.get_logger(__name__)

disk_watch = DiskWatch()
"""Of all executions of this process."""


def bound_of(execution: Execution) -> Usage:
    """What the execution's workspace and directory may take together."""
    megabytes = execution.resources.get("disk_mb")
    return Usage(int(megabytes) * 1024**2 if megabytes else settings.DISK_BYTES, settings.DISK_FILES)


def watched_of(execution: Execution, lease: Lease, runner: Runner) -> Watched:
    """The execution as the watch sees it; its supervision is woken when it has used too much."""

    def find_process() -> Identity | None:
        try:
            return runner.process(execution.key)
        except RunnerError as exc:
            log.warning("processes_not_seen", execution=execution.pk, error=str(exc))
            return None

    places = [execution_directory(execution)]
    if execution.workspace:
        places.append(workspace_of(execution).tree)
    return Watched(places, _disks(), bound_of(execution), find_process, lease.wake.set)


def require_room() -> None:
    """Raise `WorkspaceError`, which may pass, while a disk of this host has less room than is kept free."""
    for disk in _disks():
        room = room_at(disk, settings.DISK_RESERVE_BYTES)
        if room.is_short:
            raise WorkspaceError(
                f"The disk of {disk} is nearly full: {_size(room.free.bytes)} and {room.free.files:,} files are free, "
                f"{_size(room.reserve.bytes)} and {room.reserve.files:,} are kept. Free some space on this host.",
                permanent=False,
                reason="disk",
            )


def overuse_text(overuse: Overuse | None, execution: Execution) -> str:
    """What happened, why, and what to do next. None is an overuse that another worker has seen."""
    bound = bound_of(execution)
    if overuse is Overuse.HOST:
        return (
            f"Stopped: the host's disk is nearly full, and this step took most of it. Djinn keeps "
            f"{_size(settings.DISK_RESERVE_BYTES)} of the disk free. Free some space on the host, then retry."
        )
    if overuse is Overuse.FILES:
        return (
            f"File limit reached: the step's workspace and its own directory hold more than {bound.files:,} files and "
            f"directories. Make fewer files, or have an administrator raise DJINN_DISK_FILES."
        )
    return (
        f"Disk limit reached: the step's workspace and its own directory take more than {_size(bound.bytes)}, deleted "
        f"files that are still open included. Write less, or raise the limit with `resources: {{disk: ...}}`."
    )


def describe(runner: Runner) -> dict[str, str]:
    """How the bounds are kept on this host, for its log: what is in force, and what it does not see."""
    quotas = "offered by the file system, not used" if any(map(has_project_quotas, _disks())) else "not available"
    sees = "all that is open or mapped" if os.geteuid() == 0 else "what is open in processes that this user may look at"
    if not runner.isolates:
        sees = f"{sees}; processes are not isolated and may write anywhere"
    return {
        "by": "watch",
        "limit": f"{_size(settings.DISK_BYTES)}, {settings.DISK_FILES:,} files",
        "reserve": _size(settings.DISK_RESERVE_BYTES),
        "project_quotas": quotas,
        "deleted_files": sees,
    }


def _disks() -> list[Path]:
    """The directories that hold what executions write; two file systems, or one."""
    disks: list[Path] = [settings.INSTALLATION.workspaces, settings.INSTALLATION.executions]
    for disk in disks:
        disk.mkdir(parents=True, exist_ok=True)
    return disks


def _size(count: int) -> str:
    """Bytes as people read them."""
    if count >= 1024**3:
        return f"{count / 1024**3:.3g} GiB"
    return f"{count / 1024**2:.3g} MiB"
