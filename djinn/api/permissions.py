"""Which role a request needs."""

from __future__ import annotations

from typing import Any

from rest_framework.permissions import SAFE_METHODS, BasePermission
from rest_framework.request import Request

from djinn.accounts.models import Role


class OperatorsChange(BasePermission):
    """Everybody who is logged in may look (the queryset says at what); operators may change."""

    message = "This needs the role of operator."

    def has_permission(self, request: Request, view: Any) -> bool:
        user = request.user
        if not user.is_authenticated:
            return False
        return request.method in SAFE_METHODS or user.has_role(Role.OPERATOR)
