"""Where an execution's things are on this host, and the runner of this process."""

from __future__ import annotations

import threading
from functools import cache
from pathlib import Path

from django.conf import settings

from djinn.executions.models import Execution
from djinn.runner.base import Runner
from djinn.runner.workspace import Workspace

_lock = threading.Lock()


def execution_directory(execution: Execution) -> Path:
    """Brief, journal and guard."""
    path: Path = settings.INSTALLATION.executions / execution.key
    return path


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
