"""Words that files are named by."""

from __future__ import annotations

import re

IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
IDENTIFIER_RULE = "a letter, then up to 63 letters, digits, _ or -"


def is_identifier(value: str) -> bool:
    """Whether it can be the id of a pipeline, a step or an agent."""
    return IDENTIFIER.fullmatch(value) is not None
