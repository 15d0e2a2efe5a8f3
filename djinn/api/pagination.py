"""Pages of the API."""

from __future__ import annotations

import re

from rest_framework.exceptions import ParseError
from rest_framework.pagination import Cursor, CursorPagination
from rest_framework.request import Request

CURSOR = re.compile("[0-9]{1,18}")


class NewestFirst(CursorPagination):
    """Newest first; a cursor stays right while rows are added. `?page_size=` up to 200."""

    ordering = "-id"
    page_size = 50
    page_size_query_param = "page_size"
    max_page_size = 200

    def decode_cursor(self, request: Request) -> Cursor | None:
        """The cursor of the request; raises `ParseError` for one that we never gave out."""
        cursor: Cursor | None = super().decode_cursor(request)
        position = cursor.position if cursor is not None else None
        if position is not None and not CURSOR.fullmatch(str(position)):
            raise ParseError("This is no cursor of this list.")
        return cursor
