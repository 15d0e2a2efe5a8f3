"""From nothing to a running stack: servers, database, image, processes."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import CommandError

from djinn.core.installation.environment import hide_environment
from djinn.core.installation.progress import Lines, Step, Steps
from djinn.core.installation.stack import Stack

Say = Callable[[str], object]

NOT_ISOLATED = """\
WARNING: {why}.
         Steps run as plain processes of this machine: agents are NOT isolated from it."""


def boot(stack: Stack, steps: Steps) -> None:
    """Start everything of the stack. Commands of apps above are called by their names."""
    hide_environment()  # it may hold the providers' keys
    with steps.step("Servers", doing="starting PostgreSQL and Redis"):
        stack.start_servers()
    with steps.step("Database", doing="looking for migrations") as step:
        _migrate(step)
    runner = settings.RUNNER if settings.RUNNER != "auto" else _docker_or_process(steps)
    if settings.RUNNER == "process":
        steps.say(NOT_ISOLATED.format(why="DJINN_RUNNER=process"))
    with steps.step("Processes", doing="starting gateway, web, workers and beat"):
        stack.start_processes(environment={"DJINN_RUNNER": runner, "DJINN_BASE_URL": stack.url})


@contextmanager
def interrupted(*, say: Say) -> Iterator[None]:
    """Let Ctrl-C or SIGTERM end the block at any moment, and be heard once: what follows is not to be interrupted."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
        signal.signal(number, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        say("Stopping.")
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_IGN)


def say_first_login(say: Say) -> None:
    """Make the first administrator and tell the login; nothing when there are people already."""
    first_login = StringIO()
    call_command("first_login", stdout=first_login)
    if text := first_login.getvalue().strip():
        say(text)


def _migrate(step: Step) -> None:
    """Bring the database up to date."""
    from django.db import connection
    from django.db.migrations.executor import MigrationExecutor

    executor = MigrationExecutor(connection)
    count = len(executor.migration_plan(executor.loader.graph.leaf_nodes()))
    applied = 0

    def take(line: str) -> None:
        nonlocal applied
        applied = min(applied + 1, count)
        step.tell(f"migration {applied} of {count}: {line}")

    if count:
        call_command("migrate", verbosity=1, interactive=False, no_color=True, stdout=Lines(take))
        step.done = f"{count} migrations applied"


def _docker_or_process(steps: Steps) -> str:
    """Docker when its engine answers and the image can be made; else processes, said loudly."""
    try:
        with steps.step(
            "Image", doing="looking for a Docker engine", done=f"{settings.DEFAULT_IMAGE} is ready"
        ) as step:
            call_command("image", verbosity=1, no_color=True, stdout=Lines(_layers(step)))
    except CommandError as exc:
        steps.say(NOT_ISOLATED.format(why=f"no Docker engine can be used: {str(exc).splitlines()[0][:200]}"))
        return "process"
    return "docker"


def _layers(step: Step) -> Callable[[str], None]:
    """Shows what a build says, each line behind the layer that it belongs to."""
    layer = ""

    def take(line: str) -> None:
        nonlocal layer
        if line.startswith("Step "):
            layer, _, line = line.partition(" : ")
        step.tell(f"{layer}: {line}" if layer else line)

    return take
