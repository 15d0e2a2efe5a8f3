"""Who may open a page."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, cast

from django.contrib.auth.decorators import login_required
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse

from djinn.accounts.models import Role, User

P = ParamSpec("P")
View = Callable[Concatenate[HttpRequest, P], HttpResponse]


def person(request: HttpRequest) -> User:
    """Who asks; only in views that need a login."""
    return cast(User, request.user)


def operators_only(view: View[P]) -> View[P]:
    """Let only operators in; others see the page 403, and nobody is asked to log in."""
    return _only(Role.OPERATOR, view)


def viewers_only(view: View[P]) -> View[P]:
    """Let only viewers in, and those who may do more."""
    return _only(Role.VIEWER, view)


def _only(role: Role, view: View[P]) -> View[P]:
    @wraps(view)
    def guarded(request: HttpRequest, /, *args: P.args, **kwargs: P.kwargs) -> HttpResponse:
        if not person(request).has_role(role):
            raise PermissionDenied(f"This needs the role of {role.label.lower()}.")
        return view(request, *args, **kwargs)

    return cast(View[P], login_required(guarded))
