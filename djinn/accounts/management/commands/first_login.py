from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand

from djinn.accounts.services import create_first_administrator


class Command(BaseCommand):
    help = "Makes the first administrator and prints the login; does nothing when there are people already."

    def handle(self, *args: Any, **options: Any) -> None:
        password = create_first_administrator()
        if password:
            self.stdout.write(f"First login: admin / {password}   (shown only now; change it in the admin)")
