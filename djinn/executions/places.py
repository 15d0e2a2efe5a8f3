"""Where an execution's things are on this host, and the runner of this process."""

from __future__ import annotations

import shutil
import threading
from functools import cache
from pathlib import Path

import structlog
from django.conf import settings

from djinn.executions.models import Execution
from djinn.runner.base import Runner
from djinn.runner.workspace import Workspace

log = structlog.get_logger(__name__)

_lock = threading.Lock()


def execution_directory(execution: Execution) -> Path:
    """Brief, journal and guard."""
    path: Path = settings.INSTALLATION.executions / execution.key
    return path


def door_of(execution: Execution) -> Path:
    """The folder of its way to the gateway, which makes a socket in it."""
    path: Path = settings.INSTALLATION.doors / execution.key
    return path


def open_door(execution: Execution) -> None:
    """Make the folder; the gateway listens in it a moment later."""
    door = door_of(execution)
    door.mkdir(parents=True, exist_ok=True)
    door.chmod(0o711)  # whatever the umask: the container's user has to reach the socket


def close_door(execution: Execution) -> None:
    """Remove the folder with its socket: nobody comes in any more. Again is no error."""
    try:
        shutil.rmtree(door_of(execution))
    except FileNotFoundError:
        pass  # it was closed before, or never open
    except OSError as exc:  # the gateway may be making its socket; it is closed again when it is collected
        log.warning("door_not_closed", execution=execution.pk, error=str(exc))


def workspace_of(execution: Execution) -> Workspace:
    """Its lane of the workspace that it shares with its run."""
    root = settings.INSTALLATION.workspaces / execution.workspace
    return Workspace(root, owner=present_runner().owner(), lane=execution.lane)


def present_runner() -> Runner:
    """This process's runner, chosen at the first call."""
    with _lock:
        return _chosen()


@cache
def _chosen() -> Runner:
    from djinn.runner.select import choose_runner  # the docker package is 20 MB: only who runs containers pays for it

    return choose_runner(
        settings.RUNNER, installation=settings.INSTALLATION_NAME, root=settings.INSTALLATION.executions
    )
