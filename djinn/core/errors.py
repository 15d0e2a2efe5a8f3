"""The tree of errors.

DjinnError
├── UserError          the caller can mend it; the text is for them (HTTP 400)
│   ├── NotFound       what was asked for does not exist, or is not theirs to see (404)
│   ├── Forbidden      they may see it but not do this (403)
│   └── Conflict       the present state does not allow it (409)
└── AppError           we or a neighbour broke; the text is for the log, the user sees a reference (HTTP 500)
    └── OutsideError   a call to the outside failed; `permanent` tells whether asking again can help (502)
"""

from __future__ import annotations

from collections.abc import Mapping


class DjinnError(Exception):
    """The root of our errors."""


class UserError(DjinnError):
    """The caller can mend it. `details` says what is wrong by field, when there are fields."""

    status = 400
    code = "invalid"

    def __init__(self, message: str, *, details: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.details = dict(details or {})


class NotFound(UserError):
    """What was asked for does not exist, or is not the caller's to see."""

    status = 404
    code = "not_found"


class Forbidden(UserError):
    """The caller may see it but not do this."""

    status = 403
    code = "forbidden"


class Conflict(UserError):
    """The present state does not allow it."""

    status = 409
    code = "conflict"


class AppError(DjinnError):
    """We or a neighbour broke."""


class OutsideError(AppError):
    """A call to the outside failed."""

    def __init__(
        self, message: str, *, permanent: bool, status: int = 502, retry_after_seconds: float | None = None
    ) -> None:
        super().__init__(message)
        self.permanent = permanent
        self.status = status
        self.retry_after_seconds = retry_after_seconds
