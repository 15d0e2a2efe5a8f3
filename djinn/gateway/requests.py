"""What a request for a chat completion has to be: nonsense is refused before anything is done with it."""

from __future__ import annotations

from typing import Any

from djinn.core.errors import UserError
from djinn.providers.base import Body
from djinn.providers.bounded import check_numbers


def chat_request(body: Any) -> Body:
    """The body of a request for a chat completion; raises `UserError`."""
    if (
        not isinstance(body, dict)
        or not isinstance(body.get("model"), str)
        or not isinstance(body.get("messages"), list)
    ):
        raise UserError("The body needs a model and messages.")
    if not all(isinstance(message, dict) for message in body["messages"]):
        raise UserError("Each message must be an object.")
    check_numbers(body)
    return body
