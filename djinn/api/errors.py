"""One envelope for every error: `{"error": {"code", "message", "details", "reference"}}`."""

from __future__ import annotations

import uuid
from typing import Any

import structlog
from django.core.exceptions import PermissionDenied
from django.http import Http404
from rest_framework import exceptions, status
from rest_framework.response import Response

from djinn.core.errors import OutsideError, UserError

log = structlog.get_logger(__name__)


def error_response(exc: Exception, context: dict[str, Any]) -> Response:
    """The answer to an exception in a view; what is not the caller's to mend is logged under a reference."""
    if isinstance(exc, UserError):
        return _envelope(exc.status, exc.code, exc.message, exc.details)
    if isinstance(exc, Http404):
        return _envelope(404, "not_found", "There is no such thing here.")
    if isinstance(exc, PermissionDenied):
        return _envelope(403, "forbidden", "You may not do this.")
    if isinstance(exc, exceptions.ValidationError):
        return _envelope(400, "invalid", "The request does not fit.", _flat(exc.detail))
    if isinstance(exc, exceptions.APIException):
        response = _envelope(exc.status_code, exc.default_code, str(exc.detail))
        if header := getattr(exc, "auth_header", None):
            response["WWW-Authenticate"] = header
        if wait := getattr(exc, "wait", None):
            response["Retry-After"] = str(int(wait))
        return response
    reference = uuid.uuid4().hex[:12]
    log.error("request_failed", reference=reference, exc_info=exc)
    code = status.HTTP_502_BAD_GATEWAY if isinstance(exc, OutsideError) else status.HTTP_500_INTERNAL_SERVER_ERROR
    return _envelope(code, "failed", "Djinn could not do this; the log says why.", reference=reference)


def _envelope(
    code: int, kind: str, message: str, details: dict[str, str] | None = None, *, reference: str = ""
) -> Response:
    error: dict[str, Any] = {"code": kind, "message": message, "details": details or {}}
    if reference:
        error["reference"] = reference
    return Response({"error": error}, status=code)


def _flat(detail: Any, name: str = "") -> dict[str, str]:
    if isinstance(detail, dict):
        return {
            key: text for part, item in detail.items() for key, text in _flat(item, f"{name}.{part}".strip(".")).items()
        }
    if isinstance(detail, list) and any(isinstance(item, dict) for item in detail):
        return {
            key: text for number, item in enumerate(detail) for key, text in _flat(item, f"{name}.{number}").items()
        }
    return {name or "request": " ".join(str(item) for item in detail) if isinstance(detail, list) else str(detail)}
