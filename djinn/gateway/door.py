"""Who may come in: the bearer of an open execution's token, and nobody else."""

from __future__ import annotations

from math import ceil

from channels.db import database_sync_to_async
from django.http import HttpRequest, JsonResponse

from djinn.executions.models import Execution
from djinn.executions.tokens import open_execution_of


async def execution_of(request: HttpRequest) -> Execution | None:
    """The execution whose token the request bears, or None."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        return None
    execution: Execution | None = await database_sync_to_async(open_execution_of)(token.strip())
    return execution


def refusal(status: int, message: str, *, kind: str, retry_after_seconds: float | None = None) -> JsonResponse:
    """An error in OpenAI's shape."""
    response = JsonResponse({"error": {"message": message, "type": kind, "code": status}}, status=status)
    if retry_after_seconds is not None:
        response["Retry-After"] = str(ceil(retry_after_seconds))
    return response
