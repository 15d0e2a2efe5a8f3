"""Who calls, when it is a program: the bearer of a token."""

from __future__ import annotations

from rest_framework import authentication, exceptions
from rest_framework.request import Request

from djinn.accounts.brakes import TooManyAttempts, begin_attempt, network_of, token_from
from djinn.accounts.models import ApiToken, User
from djinn.accounts.services import TOKEN_PREFIX, token_of_key


class TokenAuthentication(authentication.BaseAuthentication):
    """`Authorization: Bearer djinn_...`"""

    def authenticate(self, request: Request) -> tuple[User, ApiToken] | None:
        """The token's person and the token; None leaves the request to the session. Whoever guesses is slowed down."""
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            return None
        token = token_of_key(key=key) if key.startswith(TOKEN_PREFIX) else None
        if token is None:
            try:
                begin_attempt(token_from(network_of(request._request)))
            except TooManyAttempts as exc:
                throttled = exceptions.Throttled(detail=exc.message)
                throttled.wait = exc.retry_after_seconds  # type: ignore[attr-defined]  # given to it, it adds a sentence
                raise throttled from exc
            raise exceptions.AuthenticationFailed("This token is unknown or has expired.")
        return token.user, token

    def authenticate_header(self, request: Request) -> str:
        """Makes a missing login a 401 rather than a 403."""
        return "Bearer"
