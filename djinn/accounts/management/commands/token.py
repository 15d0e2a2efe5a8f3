from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser

from djinn.accounts.models import User
from djinn.accounts.services import create_token


class Command(BaseCommand):
    help = "Makes an API token for a person and prints its key, once."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("username")
        parser.add_argument("--name", default="command line", help="what the token is for")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            user = User.objects.get(username=options["username"])
        except User.DoesNotExist as exc:
            raise CommandError(f"There is no person {options['username']!r}.") from exc
        _, key = create_token(user=user, name=options["name"])
        self.stdout.write(key)
