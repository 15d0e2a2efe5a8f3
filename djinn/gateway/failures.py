"""A provider's fault as the container reads it: OpenAI's shape, and fields that say what to make of it."""

from __future__ import annotations

from math import ceil
from typing import Any

from django.http import JsonResponse

from djinn.providers.base import ProviderError


def error_of(error: ProviderError) -> dict[str, Any]:
    """The error object. `message` is for people; a program reads `kind`, `permanent`, `doubtful`, `retry_after`."""
    return {
        "message": str(error),
        "type": "provider_error",
        "code": error.status,
        "kind": str(error.fault),
        "failure": error.failure,
        "permanent": error.permanent,
        "doubtful": error.is_doubtful,
        "retry_after": error.retry_after_seconds,
    }


def provider_refusal(error: ProviderError) -> JsonResponse:
    """The answer instead of a completion."""
    response = JsonResponse({"error": error_of(error)}, status=error.status)
    if error.retry_after_seconds is not None:
        response["Retry-After"] = str(ceil(error.retry_after_seconds))
    return response
