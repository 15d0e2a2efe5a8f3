"""From nothing to a running stack: servers, database, image, processes."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import CommandError

from djinn.core.installation.stack import Stack

Say = Callable[[str], object]

NOT_ISOLATED = """\
WARNING: no Docker engine can be used ({why}).
         Steps run as plain processes of this machine: agents are NOT isolated from it."""


def boot(stack: Stack, *, say: Say) -> None:
    """Start everything of the stack. Commands of apps above are called by their names."""
    say("Starting PostgreSQL and Redis.")
    stack.start_servers()
    call_command("migrate", verbosity=0, interactive=False)
    runner = settings.RUNNER if settings.RUNNER != "auto" else _docker_or_process(say)
    say("Starting gateway, web, workers and beat.")
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


def _docker_or_process(say: Say) -> str:
    """Docker when its engine answers and the image can be made; else processes, said loudly."""
    say("Looking for a Docker engine and the agents' image (the first build takes a few minutes).")
    try:
        call_command("image", verbosity=0)
    except CommandError as exc:
        say(NOT_ISOLATED.format(why=str(exc).splitlines()[0][:200]))
        return "process"
    return "docker"
