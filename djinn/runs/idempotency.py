"""One request, one run: a key that its sender chose, and what was asked with it.

Keys of people and of schedules are apart, so that nobody takes the key of a schedule's next run. A key that comes again
with the same request gives the run that it started; with another request it is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from django.db import IntegrityError, transaction

from djinn.accounts.models import User
from djinn.core.errors import Conflict
from djinn.runs.models import Run

JSON = Any


@dataclass(frozen=True)
class Request:
    """What somebody asks for, under a key; an empty key is none. `space` keeps apart who chooses keys."""

    user: User | None
    key: str
    digest: str
    space: str = ""

    @property
    def columns(self) -> dict[str, JSON]:
        """What the run that it starts keeps of it."""
        digest = self.digest if self.key else ""
        return {"created_by": self.user, "idempotency_key": self.key or None, "key_space": self.space,
                "request_digest": digest}  # fmt: skip


def request_of(user: User | None, key: str | None, *, space: str = "", **asked: JSON) -> Request:
    """The request for what is `asked`."""
    text = json.dumps(asked, sort_keys=True, default=str)
    return Request(user, key or "", sha256(text.encode()).hexdigest(), space)


def earlier_run(request: Request) -> Run | None:
    """The run that the same request started before; raises `Conflict` when its key belongs to another request."""
    if not request.key:
        return None
    keyed = Run.objects.filter(created_by=request.user, key_space=request.space, idempotency_key=request.key)
    run = keyed.first()
    if run is not None and run.request_digest not in {"", request.digest}:
        wrong = "was used for another request"
        raise Conflict(f"This idempotency key {wrong}, which started run {run.pk}.", details={"Idempotency-Key": wrong})
    return run


def stored_once(request: Request, make: Callable[[], Run]) -> Run:
    """What `make` stores, in a transaction of its own; the earlier run when the same request came first meanwhile."""
    try:
        with transaction.atomic():
            return make()
    except IntegrityError as exc:
        if earlier := earlier_run(request):
            return earlier
        raise Conflict("The run could not be stored; try again.") from exc
