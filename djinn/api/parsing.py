"""Request bodies: JSON that can be stored."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from math import isfinite
from typing import IO, Any

from django.conf import settings
from rest_framework.exceptions import APIException, ParseError
from rest_framework.parsers import BaseParser

DEEPEST = 50
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


class BodyTooLarge(APIException):
    """The body is larger than `DATA_UPLOAD_MAX_MEMORY_SIZE`."""

    status_code = 413
    default_detail = "The body is too large."
    default_code = "too_large"


class JsonBody(BaseParser):
    """JSON of bounded size and depth, without what PostgreSQL cannot store: NUL, lone surrogates, infinite numbers."""

    media_type = "application/json"

    def parse(
        self, stream: IO[Any], media_type: str | None = None, parser_context: Mapping[str, Any] | None = None
    ) -> Any:
        """The value; raises `ParseError`, or `BodyTooLarge` without having read it all."""
        most: int = settings.DATA_UPLOAD_MAX_MEMORY_SIZE
        body = stream.read(most + 1)
        if len(body) > most:
            raise BodyTooLarge
        try:
            value = json.loads(body, parse_constant=_no_constant)
        except RecursionError as exc:
            raise ParseError(f"The body is nested deeper than {DEEPEST} levels.") from exc
        except ValueError as exc:
            raise ParseError(f"The body is not JSON: {exc}") from exc
        if problem := _problem_of(value):
            raise ParseError(problem)
        return value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number of JSON")


def _problem_of(value: Any) -> str:
    """Why the value cannot be stored; empty when it can. Walks without recursion."""
    waiting = [(value, 1)]
    while waiting:
        item, depth = waiting.pop()
        if depth > DEEPEST:
            return f"The body is nested deeper than {DEEPEST} levels."
        if isinstance(item, str) and _UNSTORABLE.search(item):
            return "The body holds a NUL character or half of a surrogate pair."
        if isinstance(item, float) and not isfinite(item):
            return "The body holds a number that is too large."
        if isinstance(item, dict):
            waiting += [(part, depth + 1) for pair in item.items() for part in pair]
        elif isinstance(item, list):
            waiting += [(part, depth + 1) for part in item]
    return ""
