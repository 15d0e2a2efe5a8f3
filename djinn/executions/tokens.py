"""The token with which a container opens the gateway: made from the execution's id and the installation's secret.

It is never stored, so nothing that reads the database can use it, and it is worth nothing once the execution has ended.
"""

from __future__ import annotations

from django.utils.crypto import constant_time_compare, salted_hmac

from djinn.executions.models import Execution
from djinn.executions.states import OPEN

SALT = "djinn.executions.token"


def token_of(execution_id: int) -> str:
    """`<id>.<64 hexadecimal digits>`."""
    return f"{execution_id}.{salted_hmac(SALT, str(execution_id), algorithm='sha256').hexdigest()}"


def open_execution_of(token: str) -> Execution | None:
    """The execution that the token opens the gateway for, or None when it is not genuine or its execution has ended."""
    number = token.partition(".")[0]
    if not (token.isascii() and number.isdigit() and len(number) < 19):
        return None
    if not constant_time_compare(token, token_of(int(number))):
        return None
    return Execution.objects.filter(pk=int(number), status__in=OPEN).first()
