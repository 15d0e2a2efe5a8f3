from __future__ import annotations

import signal
import threading
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from djinn.core.installation.boot import boot, say_first_login
from djinn.core.installation.processes import ProcessFailed
from djinn.core.installation.stack import AlreadyRunning, Stack, free_port


class Command(BaseCommand):
    help = "Runs the whole stack on this machine until Ctrl-C, and leaves nothing behind."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--port", type=int, default=8000, help="of the dashboard on 127.0.0.1")

    def handle(self, *args: Any, **options: Any) -> None:
        stop = threading.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: stop.set())
        port = free_port(options["port"])
        if port != options["port"]:
            self.stdout.write(f"Port {options['port']} is taken; the dashboard is on {port}.")
        try:
            with Stack(settings.INSTALLATION, port=port, host_name=settings.HOST_NAME) as stack:
                boot(stack, say=self.stdout.write)
                say_first_login(self.stdout.write)
                self.stdout.write(f"\nDjinn is up: {stack.url}   (Ctrl-C stops it)")
                while not stop.wait(0.5):
                    stack.supervisor.tend()
                self.stdout.write("Stopping.")
        except (AlreadyRunning, ProcessFailed) as exc:
            raise CommandError(str(exc)) from exc
