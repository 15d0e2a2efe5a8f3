"""By what somebody is let in, for connections that stay open: what lets them in may be taken away meanwhile."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, SESSION_KEY
from django.contrib.sessions.models import Session
from django.db.models import Q
from django.http import HttpRequest
from django.utils import timezone
from django.utils.crypto import constant_time_compare

from djinn.accounts.models import ApiToken, User


@dataclass(frozen=True)
class Credential:
    """A login or a token."""

    session_key: str = ""
    token_id: int | None = None


def credential_of(request: HttpRequest, token: ApiToken | None) -> Credential:
    """What the request came in by: the token that it bears, else its login."""
    return Credential(token_id=token.pk) if token is not None else Credential(request.session.session_key or "")


def people_of(credentials: Collection[Credential]) -> dict[Credential, User]:
    """Whom each of them lets in now, as they are now; those that let nobody in any more are left out. Three queries."""
    people: dict[Credential, tuple[int, str | None]] = {}
    now = timezone.now()
    tokens = ApiToken.objects.filter(pk__in={one.token_id for one in credentials if one.token_id is not None})
    for pk, user_id in tokens.filter(Q(expires_at=None) | Q(expires_at__gt=now)).values_list("pk", "user"):
        people[Credential(token_id=pk)] = user_id, None
    sessions = Session.objects.filter(session_key__in={one.session_key for one in credentials if one.session_key})
    for session in sessions.filter(expire_date__gt=now):
        stored = session.get_decoded()
        if stored.get(SESSION_KEY) and stored.get(BACKEND_SESSION_KEY):
            credential = Credential(session_key=session.session_key)
            people[credential] = int(stored[SESSION_KEY]), str(stored.get(HASH_SESSION_KEY, ""))
    users = User.objects.filter(is_active=True).in_bulk({user_id for user_id, _ in people.values()})
    return {
        credential: users[user_id]
        for credential, (user_id, mark) in people.items()
        if user_id in users and (mark is None or _is_of_this_password(users[user_id], mark))
    }


def _is_of_this_password(user: User, mark: str) -> bool:
    marks = [user.get_session_auth_hash(), *user.get_session_auth_fallback_hash()]
    return any(constant_time_compare(mark, one) for one in marks)
