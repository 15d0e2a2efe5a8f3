from __future__ import annotations

import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser
from rich.console import Console

from djinn.core.errors import UserError
from djinn.core.installation.boot import boot, interrupted
from djinn.core.installation.processes import ProcessFailed
from djinn.core.installation.progress import Steps
from djinn.core.installation.stack import DEFAULT_PORT, PortTaken, Stack, free_port, is_running, wanted_port
from djinn.core.liveness import problems, worker_views
from djinn.providers.catalogue import find_provider, parse_model
from djinn.runs.selectors import RunView
from djinn.runs.services import start_run
from djinn.runs.terminal import follow, has_succeeded, print_result

PACKAGE = "repositories/wordstats"
TEST_COMMAND = (sys.executable, "-B", "-m", "unittest", "discover", "-s", "tests", "-t", ".")
TEST_STEP = "TEST"
LOOK_SECONDS = 2.0
PATIENCE_SECONDS = 20.0
"""For how long workers may be missing: at a start none has been heard of yet."""


class Command(BaseCommand):
    help = "Starts the stack unless it runs already, runs the pipeline `demo`, shows it and its result, and stops."
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--model", default="", metavar="PROVIDER/NAME", help="a real model instead of the script")
        parser.add_argument("--port", type=int, help="of the dashboard meanwhile")

    def handle(self, *args: Any, **options: Any) -> None:
        console, steps = Console(), Steps(sys.stdout)
        check_provider(options["model"])
        check_tests_fail(settings.PIPELINES_DIRECTORY / PACKAGE)
        console.print("The tests of the package fail, as they should before the run.")
        try:
            with ExitStack() as exit_stack:
                stack = _stack(port=options["port"])
                if stack is None:
                    self.stdout.write("Using the stack that is running already.")
                else:
                    exit_stack.enter_context(stack)
                exit_stack.enter_context(interrupted(say=self.stdout.write))
                if stack is not None:
                    boot(stack, steps)
                run = start_run(pipeline_id="demo", inputs={}, model=options["model"])
                view = follow(run, console, meanwhile=FleetWatch(stack))
                self._conclude(view, console, url=stack.url if stack else settings.BASE_URL)
                return
            raise CommandError("Interrupted.", returncode=130)
        except UserError as exc:
            raise CommandError(exc.message) from exc
        except (PortTaken, ProcessFailed) as exc:
            raise CommandError(str(exc)) from exc

    def _conclude(self, view: RunView, console: Console, *, url: str) -> None:
        """Show what came of it; raises `CommandError` unless the run is what a demo has to be."""
        print_result(view, console, url=url)
        if not has_succeeded(view):
            raise CommandError(f"The demo's run {view.row.pk} {view.row.status}.")
        check_tests_passed(view)
        console.print("The tests of the package pass now, on exactly what the run left.")
        console.print("[dim]`make up` starts the same stack again and shows the page.[/]")


class FleetWatch:
    """Looks after the processes while a run is followed: starts again what died, and ends the wait for dead workers."""

    def __init__(self, stack: Stack | None) -> None:
        self._stack = stack
        self._looked = self._well = time.monotonic()

    def __call__(self) -> None:
        """Raises `ProcessFailed` when a process cannot be kept alive, `CommandError` when nobody does the work."""
        if self._stack is not None:
            self._stack.supervisor.tend()
        now = time.monotonic()
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        found = problems(worker_views())
        if not found:
            self._well = now
        elif now - self._well > PATIENCE_SECONDS:
            logs = settings.INSTALLATION.logs
            raise CommandError(f"The run goes on no more: {found[0]}. The workers' logs are in {logs}.")


def check_provider(model: str) -> None:
    """Raise `CommandError` when the model's provider has no key here, where the gateway is about to be started."""
    try:
        if model:
            find_provider(parse_model(model).provider)
    except UserError as exc:
        raise CommandError(exc.message) from exc


def check_tests_fail(package: Path) -> None:
    """Run the shipped package's tests here; raises `CommandError` unless they fail."""
    result = subprocess.run(TEST_COMMAND, cwd=package, capture_output=True, timeout=60, check=False)
    if result.returncode == 0:
        raise CommandError(f"The tests of {package} pass already: the demo has nothing to mend.")


def check_tests_passed(view: RunView) -> None:
    """Raise `CommandError` unless the last step TEST passed on the very tree that the run left, a changed one.

    The tests ran in the step's container: what agents wrote is never run on the host.
    """
    tests = [step for step in view.steps if step.row.step == TEST_STEP and step.execution is not None]
    last = view.steps[-1].execution
    if not tests or last is None or tests[-1].row.outputs.get("TESTS") != "pass":
        raise CommandError("The run succeeded without its tests having passed.")
    tested = tests[-1].execution
    if tested is None or tested.result_snapshot != last.result_snapshot:
        raise CommandError("What the run left is not what its tests ran on.")
    if last.result_snapshot == last.origin_snapshot:
        raise CommandError("The run changed nothing.")


def _stack(*, port: int | None) -> Stack | None:
    """The stack to start, or None when one is running already."""
    if is_running(settings.INSTALLATION):
        return None
    return Stack(
        settings.INSTALLATION,
        port=free_port(DEFAULT_PORT) if port is None else wanted_port(port),
        host_name=settings.HOST_NAME,
        executions_per_worker=settings.EXECUTIONS_PER_WORKER,
    )
