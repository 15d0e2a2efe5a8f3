from __future__ import annotations

import time
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from djinn.core.installation.boot import boot, interrupted, say_first_login
from djinn.core.installation.processes import ProcessFailed
from djinn.core.installation.stack import AlreadyRunning, Stack, free_port


class Command(BaseCommand):
    help = "Runs the whole stack on this machine until Ctrl-C, and leaves nothing behind."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--port", type=int, default=8000, help="of the dashboard on 127.0.0.1")

    def handle(self, *args: Any, **options: Any) -> None:
        port = free_port(options["port"])
        if port != options["port"]:
            self.stdout.write(f"Port {options['port']} is taken; the dashboard is on {port}.")
        try:
            with (
                Stack(
                    settings.INSTALLATION,
                    port=port,
                    host_name=settings.HOST_NAME,
                    executions_per_worker=settings.EXECUTIONS_PER_WORKER,
                ) as stack,
                interrupted(say=self.stdout.write),
            ):
                boot(stack, say=self.stdout.write)
                say_first_login(self.stdout.write)
                self.stdout.write(f"\nDjinn is up: {stack.url}   (Ctrl-C stops it)")
                while True:
                    stack.supervisor.tend()
                    time.sleep(0.5)
        except (AlreadyRunning, ProcessFailed) as exc:
            raise CommandError(str(exc)) from exc
