from __future__ import annotations

import sys
import time
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from djinn.core.installation.boot import boot, interrupted, say_first_login
from djinn.core.installation.processes import ProcessFailed
from djinn.core.installation.progress import Steps
from djinn.core.installation.stack import (
    DEFAULT_PORT,
    AlreadyRunning,
    PortTaken,
    Stack,
    free_port,
    is_running,
    wanted_port,
)


class Command(BaseCommand):
    help = "Runs the whole stack on this machine until Ctrl-C, and leaves nothing behind."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--port", type=int, help=f"of the dashboard on 127.0.0.1; {DEFAULT_PORT} unless it is taken"
        )

    def handle(self, *args: Any, **options: Any) -> None:
        if is_running(settings.INSTALLATION):
            self.stdout.write(f"Djinn is running already: {settings.INSTALLATION.url}")
            return
        steps = Steps(sys.stdout)
        try:
            with (
                Stack(
                    settings.INSTALLATION,
                    port=_port(options["port"], steps),
                    host_name=settings.HOST_NAME,
                    executions_per_worker=settings.EXECUTIONS_PER_WORKER,
                ) as stack,
                interrupted(say=steps.say),
            ):
                boot(stack, steps)
                say_first_login(steps.say)
                steps.say(f"\nDjinn is up: {stack.url}   (Ctrl-C stops it)")
                while True:
                    stack.supervisor.tend()
                    time.sleep(0.5)
        except (AlreadyRunning, PortTaken, ProcessFailed) as exc:
            raise CommandError(str(exc)) from exc


def _port(wanted: int | None, steps: Steps) -> int:
    """The port that was asked for, or else the usual one, or any when that is taken; raises `PortTaken`."""
    if wanted is not None:
        return wanted_port(wanted)
    port = free_port(DEFAULT_PORT)
    if port != DEFAULT_PORT:
        steps.say(
            f"Port {DEFAULT_PORT} is taken by another program; the dashboard is on {port}. `make up PORT=` chooses."
        )
    return port
