"""Reading people."""

from __future__ import annotations

from django.db.models import Q

from djinn.accounts.models import Role, User

MOST_NAMED = 5


def administrators() -> list[str]:
    """Names of the first few people who may give others a role, for whoever has to ask one."""
    rows = User.objects.filter(Q(role=Role.ADMIN) | Q(is_superuser=True), is_active=True)
    return list(rows.order_by("username").values_list("username", flat=True)[:MOST_NAMED])
