"""Fixtures of fault tests."""

from __future__ import annotations

from tests.stack.conftest import image

__all__ = ["image"]
