from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand

from djinn.executions.host import remove_all_containers
from djinn.runner.base import RunnerError
from djinn.runner.select import choose_runner


class Command(BaseCommand):
    help = "Removes every container of this installation. What ran in them counts as lost and is tried again later."
    requires_system_checks = ()

    def handle(self, *args: Any, **options: Any) -> None:
        for kind in ("docker", "process"):
            runner = choose_runner(kind, installation=settings.INSTALLATION_NAME, root=settings.INSTALLATION.executions)
            try:
                count = remove_all_containers(runner)
            except RunnerError:
                continue  # an engine that does not answer holds nothing of ours that could be removed now
            if count:
                self.stdout.write(f"Removed {count} containers of runner {kind}.")
