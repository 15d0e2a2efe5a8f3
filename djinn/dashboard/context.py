"""What every page may say beside its own subject: whom to ask for a role, and that nothing isolates the steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.http import HttpRequest
from django.utils.functional import SimpleLazyObject

from djinn.accounts.selectors import administrators
from djinn.core.liveness import hosts_not_isolating

MOST_HOSTS = 5


@dataclass(frozen=True)
class Hosts:
    """Some hosts by name, and how many more there are."""

    named: list[str]
    more: int

    def __bool__(self) -> bool:
        return bool(self.named)


def standing(request: HttpRequest) -> dict[str, Any]:
    """`not_isolating` and `administrators` for templates, read when they are used; empty for who is not logged in."""
    user: Any = getattr(request, "user", None)
    if user is None or not user.is_authenticated:
        return {"not_isolating": None, "administrators": []}
    return {"not_isolating": SimpleLazyObject(_hosts), "administrators": SimpleLazyObject(administrators)}


def _hosts() -> Hosts:
    found = hosts_not_isolating()
    return Hosts(found[:MOST_HOSTS], len(found[MOST_HOSTS:]))
