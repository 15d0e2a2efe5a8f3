"""Who calls, when it is a program: the bearer of a token."""

from __future__ import annotations

from rest_framework import authentication, exceptions
from rest_framework.request import Request

from djinn.accounts.models import User
from djinn.accounts.services import TOKEN_PREFIX, user_of_key


class TokenAuthentication(authentication.BaseAuthentication):
    """`Authorization: Bearer djinn_...`"""

    def authenticate(self, request: Request) -> tuple[User, None] | None:
        """The token's person; None leaves the request to the session."""
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        user = user_of_key(key=key) if key.startswith(TOKEN_PREFIX) else None
        if user is None:
            raise exceptions.AuthenticationFailed("This token is unknown or has expired.")
        return user, None

    def authenticate_header(self, request: Request) -> str:
        """Makes a missing login a 401 rather than a 403."""
        return "Bearer"
