"""Database connections outside of requests and tasks, and retrying what may be retried."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connection


@contextmanager
def released() -> Iterator[None]:
    """Give this thread's connection back to the pool at the end: for threads that wait long between two uses."""
    try:
        yield
    finally:
        if not connection.in_atomic_block:
            connection.close()
