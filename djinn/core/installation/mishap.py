"""What a command says when something happened that nobody expected. Standard library only."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from djinn.core.installation.paths import present_installation

DEBUG = "DJINN_DEBUG"
_ON = frozenset({"1", "true", "yes", "on", "y", "ok"})
"""As django-environ reads a boolean."""
LONGEST_WORDS = 500


def is_debug() -> bool:
    """Whether somebody wants to see tracebacks."""
    return os.environ.get(DEBUG, "").lower() in _ON


@contextmanager
def told() -> Iterator[None]:
    """End the program with a sentence instead of a traceback, which is kept in the installation's logs."""
    try:
        yield
    except Exception as exc:  # the program's edge
        if is_debug():
            raise
        sys.stderr.write(f"{_sentence(exc)}\n{_kept()}\n")
        sys.exit(1)


def _sentence(exc: Exception) -> str:
    if isinstance(exc, ModuleNotFoundError):
        return f"The package {exc.name} is not installed. Use .venv/bin/python; `make up` installs what it needs."
    words = (str(exc).strip() or "no further words").splitlines()[0][:LONGEST_WORDS]
    return f"{type(exc).__name__}: {words}"


def _kept() -> str:
    """Write the present exception's traceback down; where it is."""
    log = present_installation().logs / "manage.log"
    try:
        log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with open(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "a", encoding="utf-8") as file:
            file.write(f"{datetime.now(UTC).isoformat()} {' '.join(sys.argv)}\n{traceback.format_exc()}\n")
    except OSError as exc:
        return f"Its traceback could not be kept: {exc}. {DEBUG}=1 shows it here."
    return f"Its traceback is in {log}; {DEBUG}=1 shows it here."
