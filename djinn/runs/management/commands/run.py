from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from djinn.core.errors import UserError
from djinn.core.installation import servers
from djinn.runs.management.reading import follow_to_the_end
from djinn.runs.services import start_run

NOT_UP = "The database does not answer. Is Djinn up? Start it with `make up` in another terminal."


class Command(BaseCommand):
    help = (
        "Starts a run of a pipeline. With --follow, shows it until it ends: exit code 0 when it succeeded, 1 when not, "
        "130 after Ctrl-C, which stops the showing and not the run (`runs follow` shows it again)."
    )
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("pipeline")
        parser.add_argument(
            "--input", action="append", default=[], metavar="NAME=VALUE", help="an input; may be repeated"
        )
        parser.add_argument("--model", default="", metavar="PROVIDER/NAME", help="for all agents, instead of their own")
        parser.add_argument("--priority", type=int, help="from -100 to 100, instead of the pipeline's own")
        parser.add_argument("--follow", action="store_true", help="show the run as it happens")

    def handle(self, *args: Any, **options: Any) -> None:
        if not servers.postgres_answers(present_database_url()):
            raise CommandError(NOT_UP)
        inputs = dict(pair(text) for text in options["input"])
        try:
            run = start_run(
                pipeline_id=options["pipeline"], inputs=inputs, model=options["model"], priority=options["priority"]
            )
        except UserError as exc:
            lines = [exc.message, *(f"  {name}: {text}" for name, text in exc.details.items())]
            raise CommandError("\n".join(lines)) from exc
        self.stdout.write(f"Run {run.pk}: {settings.BASE_URL}/runs/{run.pk}/")
        if not options["follow"]:
            return
        follow_to_the_end(run)


def present_database_url() -> str:
    """The database of this installation, as a libpq connection string."""
    from django.db import connection

    parameters = connection.get_connection_params()
    wanted = ("host", "port", "user", "password", "dbname")
    return " ".join(f"{name}='{parameters[name]}'" for name in wanted if parameters.get(name))


def pair(text: str) -> tuple[str, str]:
    """Name and value of NAME=VALUE; raises `CommandError`."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise CommandError(f"--input {text!r}: write NAME=VALUE.")
    return name, value
