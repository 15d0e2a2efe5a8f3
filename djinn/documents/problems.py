"""One thing that is wrong in a file that somebody wrote."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Problem:
    """One thing wrong in a file. `key` is a path such as `onResult.DONE.goto`; lines count from 1."""

    file: str
    line: int
    message: str
    step: str = ""
    key: str = ""
    severity: Severity = "error"

    def __str__(self) -> str:
        place = [f"{self.file}:{self.line}"]
        place += [f"step {self.step}"] if self.step else []
        place += [f"key {self.key}"] if self.key else []
        return ": ".join([*place, self.message])
