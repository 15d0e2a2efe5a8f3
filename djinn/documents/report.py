"""The problems of one file, collected while it is read."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from djinn.documents.problems import Problem, Severity

MAX_SUGGESTIONS = 100
MAX_WORD = 64
MAX_QUOTED = 80


def suggestion(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'FIX'?` when a known word is close, else nothing."""
    if len(word) > MAX_WORD:
        return ""
    by_folded = {other.casefold(): other for other in known}
    near = difflib.get_close_matches(word.casefold(), by_folded, n=1)
    return f"; did you mean {by_folded[near[0]]!r}?" if near else ""


def quoted(text: str) -> str:
    """The text in quotes as an error message shows it: one line, cut when it is long."""
    return repr(text) if len(text) <= MAX_QUOTED else repr(text[:MAX_QUOTED]) + "..."


class Report:
    """Collects problems. Suggestions are the slow part, so only the first hundred are searched."""

    def __init__(self, file: str) -> None:
        self.file = file
        self._problems: list[Problem] = []
        self._suggestions = 0

    def error(self, line: int, message: str, *, step: str = "", key: str = "") -> None:
        self._add(line, message, step, key, "error")

    def warn(self, line: int, message: str, *, step: str = "", key: str = "") -> None:
        self._add(line, message, step, key, "warning")

    def suggest(self, word: str, known: Iterable[str]) -> str:
        self._suggestions += 1
        return suggestion(word, known) if self._suggestions <= MAX_SUGGESTIONS else ""

    @property
    def has_errors(self) -> bool:
        return any(problem.severity == "error" for problem in self._problems)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Errors and warnings in the order of lines."""
        return tuple(sorted(self._problems, key=lambda problem: problem.line))

    def _add(self, line: int, message: str, step: str, key: str, severity: Severity) -> None:
        self._problems.append(Problem(self.file, line, message, _shown(step), _shown(key), severity))


def _shown(word: str) -> str:
    """The word as a terminal may print it; the words of a file can hold control characters."""
    return word if word.isprintable() else repr(word)
