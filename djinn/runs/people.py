"""How people are named in the log."""

from __future__ import annotations

from django.conf import settings

from djinn.accounts.models import User


def name_of(user: User | None) -> str:
    """The person's name, or the host whose command line it was."""
    return user.get_username() if user else f"command line of {settings.HOST_NAME}"
