"""Steps that take a while, shown with their progress. Standard library only: packages are not installed at first."""

from __future__ import annotations

import io
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TextIO

NAME_WIDTH = 10
QUIET_SECONDS = 10.0
"""How often a step that goes on writes a line where lines cannot be written over."""
NARROWEST = 40


@dataclass
class Step:
    """One step that is being done: `tell` shows how far it is, `done` is what is left standing behind its name."""

    name: str
    done: str
    show: Callable[[Step, str], None]
    began: float = field(default_factory=time.monotonic)

    def tell(self, text: str) -> None:
        self.show(self, text)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began


class Steps:
    """Writes a line for each step. On a terminal the line of the present one is written over as it goes."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._is_terminal = out.isatty()
        self._last = time.monotonic()
        self._is_open = False

    @contextmanager
    def step(self, name: str, *, doing: str, done: str = "ready") -> Iterator[Step]:
        """Show a step while the block runs; one that raises leaves no line."""
        step = Step(name, done, self._show)
        self._last = time.monotonic()
        if self._is_terminal:
            step.tell(doing)
        try:
            yield step
        except BaseException:
            self._clear()
            raise
        self.say(f"{step.name:<{NAME_WIDTH}} {step.done} ({step.seconds:.0f} s)")

    def say(self, text: str) -> None:
        """Write a line that stays."""
        self._clear()
        self._out.write(f"{text}\n")
        self._out.flush()

    def _show(self, step: Step, text: str) -> None:
        line = f"{step.name:<{NAME_WIDTH}} {_harmless(text)}"
        if self._is_terminal:
            width = max(NARROWEST, shutil.get_terminal_size().columns) - 1
            self._out.write(f"\r\x1b[K{line[:width]}")
            self._out.flush()
            self._is_open = True
        elif time.monotonic() - self._last > QUIET_SECONDS:
            self._last = time.monotonic()
            self.say(line)

    def _clear(self) -> None:
        if self._is_open:
            self._out.write("\r\x1b[K")
            self._is_open = False


class Lines(io.TextIOBase):
    """A stream to write to: each line that is written is given to a function."""

    def __init__(self, take: Callable[[str], object]) -> None:
        self._take = take
        self._rest = ""

    def write(self, text: str) -> int:
        *lines, self._rest = (self._rest + text).split("\n")
        for line in filter(None, map(str.strip, lines)):
            self._take(line)
        return len(text)


def _harmless(text: str) -> str:
    """The text without what could steer a terminal: it may be the words of a package's installation."""
    return "".join(letter for letter in text if letter.isprintable())
