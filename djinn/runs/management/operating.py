"""What the commands that steer runs share."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from djinn.accounts.models import Role, User
from djinn.core.errors import UserError
from djinn.core.installation import servers
from djinn.runs.lines import harmless
from djinn.runs.management.commands.run import NOT_UP, present_database_url
from djinn.runs.models import Run


class OperatingCommand(BaseCommand):
    """A command on a stack that is up; what a person can mend is an error without a traceback."""

    requires_system_checks = ()

    def handle(self, *args: Any, **options: Any) -> None:
        if not servers.postgres_answers(present_database_url()):
            raise CommandError(NOT_UP)
        try:
            self.act(options)
        except UserError as exc:
            lines = [exc.message, *(f"  {name}: {text}" for name, text in exc.details.items())]
            raise CommandError("\n".join(lines)) from exc

    @abstractmethod
    def act(self, options: dict[str, Any]) -> None:
        """Do what the options say."""

    def say(self, text: str) -> None:
        """Write lines that may hold what agents wrote."""
        self.stdout.write(harmless(text))


def add_person(parser: CommandParser) -> None:
    """The option that names a person."""
    parser.add_argument("--as", dest="person", default="", metavar="USER", help="who does it")


def person_of(options: dict[str, Any]) -> User | None:
    """The person of `--as`, None when there is none; raises `CommandError` for somebody unknown or inactive."""
    name = options["person"]
    if not name:
        return None
    user = User.objects.filter(username=name, is_active=True).first()
    if user is None:
        raise CommandError(f"There is nobody {name!r} with an active account.")
    return user


def operator_of(options: dict[str, Any]) -> User | None:
    """The person of `--as`, who must be an operator, or None: whoever reaches this database may do everything."""
    user = person_of(options)
    if user is not None and not user.has_role(Role.OPERATOR):
        raise CommandError(f"{user.get_username()} is no operator.")
    return user


def find_run(number: int) -> Run:
    """The run; raises `CommandError`."""
    run = Run.objects.filter(pk=number).first() if number < 2**63 else None
    if run is None:
        raise CommandError(f"There is no run {number}.")
    return run
