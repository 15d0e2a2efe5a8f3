"""Values as text on a page: most of them came out of a container."""

from __future__ import annotations

import json
import re
from typing import Any

JSON = Any

MOST_CHARACTERS = 8192
"""How much of one value is shown; the journal's own pieces fit."""
MOST_WORD_CHARACTERS = 300
_ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
_CONTROLS = {code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\n\t"} | {0x7F: "\u2421"}


def shown(value: JSON, *, most: int = MOST_CHARACTERS) -> str:
    """The value as text: strings as they are, else indented JSON; cut, and then it says so."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2, default=str)
    text = _ANSI.sub("", text).replace("\r\n", "\n").replace("\r", "\n").translate(_CONTROLS)
    if len(text) <= most:
        return text
    return f"{text[:most]}\n[cut: {len(text) - most:,} more characters are not shown here]"


def word(value: JSON) -> str:
    """The value in one line; cut with an ellipsis."""
    text = " ".join(shown(value).split())
    return text if len(text) <= MOST_WORD_CHARACTERS else text[: MOST_WORD_CHARACTERS - 1] + "…"
