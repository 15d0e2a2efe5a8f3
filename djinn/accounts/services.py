"""What is done to people and their tokens."""

from __future__ import annotations

import hashlib
import secrets
from datetime import datetime, timedelta

from django.contrib.sessions.models import Session
from django.db import transaction
from django.utils import timezone

from djinn.accounts.brakes import forget_failures
from djinn.accounts.models import ApiToken, Role, User
from djinn.core.errors import UserError

TOKEN_PREFIX = "djinn_"  # noqa: S105  it marks a key, it is none
TOUCH_EVERY = timedelta(minutes=1)


def create_token(*, user: User, name: str, expires_at: datetime | None = None) -> tuple[ApiToken, str]:
    """A new token and its key, which nobody can read again. Raises `UserError` for an expiry in the past."""
    if expires_at is not None and expires_at <= timezone.now():
        raise UserError("The expiry lies in the past.", details={"expires_at": "must be in the future"})
    key = TOKEN_PREFIX + secrets.token_urlsafe(32)
    return ApiToken.objects.create(user=user, name=name, key_hash=hash_key(key), expires_at=expires_at), key


def user_of_key(*, key: str) -> User | None:
    """The active person whose unexpired token this is, or None."""
    token = token_of_key(key=key)
    return None if token is None else token.user


def token_of_key(*, key: str) -> ApiToken | None:
    """The unexpired token of an active person, or None. Notes the use, at most once a minute."""
    now = timezone.now()
    token = ApiToken.objects.select_related("user").filter(key_hash=hash_key(key)).first()
    if token is None or not token.user.is_active or (token.expires_at is not None and token.expires_at <= now):
        return None
    if token.last_used_at is None or token.last_used_at < now - TOUCH_EVERY:
        ApiToken.objects.filter(pk=token.pk).update(last_used_at=now)
    return token


def hash_key(key: str) -> str:
    """SHA-256, without salt: a key holds 256 random bits, so there is nothing to guess and it can be looked up."""
    return hashlib.sha256(key.encode()).hexdigest()


@transaction.atomic
def create_first_administrator() -> str | None:
    """Make the user `admin` with a random password and return it; None when there are people already."""
    if User.objects.exists():
        return None
    password = secrets.token_urlsafe(12)
    User.objects.create_superuser("admin", password=password, role=Role.ADMIN)
    return password


def forget_expired() -> int:
    """Delete expired tokens and sessions, and failures that count no more; how many there were."""
    now = timezone.now()
    tokens, _ = ApiToken.objects.filter(expires_at__lt=now).delete()
    sessions, _ = Session.objects.filter(expire_date__lt=now).delete()
    return tokens + sessions + forget_failures()
