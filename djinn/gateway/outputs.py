"""Whether an answer follows the schema of the execution that asks."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import structlog
from django.core.exceptions import RequestDataTooBig
from django.http import HttpRequest, JsonResponse
from django.views.decorators.csrf import csrf_exempt

from djinn.core.errors import UserError
from djinn.executions.models import Execution
from djinn.executions.states import Reason
from djinn.executions.structured import (
    CheckFailed,
    output_schema_of,
    problems_of,
    quick_problems_of,
    unmatched_answer,
)
from djinn.gateway.door import execution_of, refusal
from djinn.gateway.reading import json_of

log = structlog.get_logger(__name__)

LARGEST_BODY = 1024 * 1024
INVALID = "invalid_request_error"
_quick = ThreadPoolExecutor(max_workers=4, thread_name_prefix="check")
_slow = ThreadPoolExecutor(max_workers=2, thread_name_prefix="slow-check")
"""Every check begins among the quick ones; what is not done in a moment waits for its turn among its like."""
_under_way: set[int] = set()
"""Executions whose answer is being checked: one container has one place in a queue."""


@csrf_exempt
async def check_output(request: HttpRequest) -> JsonResponse:
    """`POST {"value": ...}`: `{"problems": [...]}`, empty when the value follows the schema of its execution."""
    if request.method != "POST":
        return refusal(405, "Use POST.", kind=INVALID)
    execution = await execution_of(request)
    if execution is None:
        return refusal(401, "This token opens nothing.", kind="authentication_error")
    wanted = output_schema_of(execution)
    if wanted is None:
        return refusal(409, "The answer of this execution follows no schema.", kind=INVALID)
    try:
        value = await _value(request)
    except RequestDataTooBig:
        return refusal(413, f"The body is larger than {LARGEST_BODY} bytes.", kind=INVALID)
    except UserError as exc:
        return refusal(400, exc.message, kind=INVALID)
    if execution.pk in _under_way:
        return refusal(429, "One answer is being checked already.", kind=INVALID, retry_after_seconds=1)
    return await _checked(execution, value, wanted["schema"])


async def _checked(asking: Execution, value: Any, schema: dict[str, Any]) -> JsonResponse:
    execution = asking.pk
    _under_way.add(execution)
    check = asyncio.create_task(_problems(value, schema))
    check.add_done_callback(lambda _: _under_way.discard(execution))  # also when whoever asked has gone
    try:
        problems = await asyncio.shield(check)
        unmatched = "" if problems else unmatched_answer(asking, value)
        if unmatched:
            return JsonResponse({"problems": [unmatched], "reason": Reason.UNMATCHED})
        return JsonResponse({"problems": problems})
    except CheckFailed as exc:
        log.error("check_failed", execution=execution, error=str(exc))
        return refusal(503, "The answer cannot be checked now.", kind="server_error", retry_after_seconds=2)


async def _problems(value: Any, schema: dict[str, Any]) -> list[str]:
    loop = asyncio.get_running_loop()
    found = await loop.run_in_executor(_quick, quick_problems_of, value, schema)
    return await loop.run_in_executor(_slow, problems_of, value, schema) if found is None else found


async def _value(request: HttpRequest) -> Any:
    body = await json_of(request, most_bytes=LARGEST_BODY, is_strict=False)
    if not isinstance(body, dict) or set(body) != {"value"}:
        raise UserError("The body needs a value, and nothing else.")
    return body["value"]
