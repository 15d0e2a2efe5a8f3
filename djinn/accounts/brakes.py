"""How often one may guess: each failure lets the next attempt wait longer, by account and by network.

The counts are rows, so that all web processes share them. An attempt counts as failed before it is looked at, and is
taken back when it succeeds: many at once are no way around. Somebody else's guesses keep the owner of an account out
for a minute at most, while the network that guesses soon waits a quarter of an hour. Accounts that do not exist are
counted as well, so that nothing tells them from others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import IPv6Address, ip_address, ip_network
from math import ceil

from django.contrib.auth import get_user_model
from django.db import transaction
from django.db.models import F
from django.db.models.functions import Greatest
from django.http import HttpRequest
from django.utils import timezone

from djinn.accounts.models import Brake
from djinn.core.errors import UserError

FORGET_AFTER = timedelta(hours=1)


class TooManyAttempts(UserError):
    """There were too many failures before; `retry_after_seconds` tells when it can be tried again."""

    status = 429
    code = "throttled"

    def __init__(self, seconds: float) -> None:
        self.retry_after_seconds = max(1, ceil(seconds))
        super().__init__(f"Too many failed attempts. Try again in {_words(self.retry_after_seconds)}.")


@dataclass(frozen=True)
class Guessed:
    """What is guessed at, or from where; how many failures cost nothing, and the longest wait."""

    subject: str
    free: int
    longest_seconds: int

    def wait_seconds(self, failures: int) -> int:
        """1, 2, 4 ... seconds behind the free ones."""
        if failures < self.free:
            return 0
        return min(self.longest_seconds, 1 << min(failures - self.free, 20))


def login_of(name: str, network: str) -> list[Guessed]:
    """What an attempt to log in is counted by."""
    digest = hashlib.sha256(get_user_model().normalize_username(name).encode()).hexdigest()
    return [Guessed(f"account:{digest}", 5, 60), Guessed(f"login:{network}", 20, 900)]


def token_from(network: str) -> list[Guessed]:
    """What an unknown token is counted by. Whoever has a genuine one is never kept out: nobody guesses 256 bits."""
    return [Guessed(f"token:{network}", 20, 60)]


def network_of(request: HttpRequest) -> str:
    """The /24 or /64 of the address that the request comes from; a trusted proxy's header is read by the server."""
    try:
        address = ip_address(request.META.get("REMOTE_ADDR", ""))
    except ValueError:
        return "unknown"  # a Unix socket
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return str(ip_network((address, 24 if address.version == 4 else 64), strict=False))


def begin_attempt(guessed: Sequence[Guessed]) -> None:
    """Count a failure with each, in one transaction; raises `TooManyAttempts`, counting nothing, while one waits."""
    with transaction.atomic():
        rows = [_locked(one.subject) for one in sorted(guessed, key=lambda one: one.subject)]
        now = timezone.now()
        wait = max((row.blocked_until - now for row in rows), default=timedelta())
        if wait > timedelta():
            raise TooManyAttempts(wait.total_seconds())
        by_subject = {one.subject: one for one in guessed}
        for row in rows:
            row.failures = row.failures + 1 if row.failed_at > now - FORGET_AFTER else 1
            row.failed_at = now
            row.blocked_until = now + timedelta(seconds=by_subject[row.subject].wait_seconds(row.failures))
            row.save(update_fields=["failures", "failed_at", "blocked_until"])


def attempt_succeeded(account: Guessed, network: Guessed) -> None:
    """Forget the account's failures, and take the attempt back from the network's."""
    Brake.objects.filter(subject=account.subject).delete()
    Brake.objects.filter(subject=network.subject).update(
        failures=Greatest(F("failures") - 1, 0), blocked_until=timezone.now()
    )


def forget_failures() -> int:
    """Delete what counts no more; how many there were."""
    now = timezone.now()
    count, _ = Brake.objects.filter(failed_at__lt=now - FORGET_AFTER, blocked_until__lt=now).delete()
    return count


def _locked(subject: str) -> Brake:
    Brake.objects.bulk_create([Brake(subject=subject)], ignore_conflicts=True)
    return Brake.objects.select_for_update().get(subject=subject)


def _words(seconds: int) -> str:
    if seconds < 60:
        return f"{seconds} second{'' if seconds == 1 else 's'}"
    minutes = ceil(seconds / 60)
    return f"{minutes} minute{'' if minutes == 1 else 's'}"
