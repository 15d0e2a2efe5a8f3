"""Reading a YAML mapping key by key: every wrong key is reported and reading goes on with a default.

The classes of pydantic are not used for this edge: they know neither lines nor the words of this language, and stop at
the first wrong key of a part that depends on others.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from typing import TypeVar

from djinn.pipelines.document import Items, Node, Scalar, Table, line_of
from djinn.pipelines.report import Report, quoted

T = TypeVar("T")
Reader = Callable[[Node], T]

ALIASES: dict[str, tuple[str, ...]] = {
    "timeout": ("timeoutSeconds",),
    "retries": ("maxRetries",),
}
LATER = frozenset(
    [
        "needs",
        "when",
        "foreach",
        "matrix",
        "uses",
        "approve",
        "join",
        "loop",
        "continueLoop",
        "onEachComplete",
        "onAllComplete",
        "outputSchema",
        "notify",
        "retry",
        "budget",
        "concurrency",
        "artifacts",
        "priority",
        "disk",
    ]
)
"""Keys of the language that this version refuses, because leaving them out would change what a pipeline does."""
RETRYABLE_REASONS = frozenset(["error", "timeout", "out_of_memory", "output_limit", "disk", "turns", "model"])
"""The failures of a step that are charged to it and that another try may mend."""
WITHOUT_EFFECT = frozenset({"outputMethod"})

MAX_ITEMS = 200

_IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_RESERVED = frozenset(
    [
        "true",
        "false",
        "none",
        "True",
        "False",
        "None",
        "and",
        "or",
        "not",
        "if",
        "elif",
        "else",
        "endif",
        "for",
        "endfor",
        "in",
        "is",
        "loop",
    ]
)
_DURATION = re.compile(r"([0-9]{1,9}) ?([smhd]?)")
_SIZE = re.compile(r"([0-9]{1,9}) ?([kmg]?)(?:i?b)?", re.IGNORECASE)
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


class Wrong(Exception):
    """A value that a reader refuses; the message says what it should be."""


class Fields:
    """The keys of one mapping. `known` are the keys it may have; all others are reported at once."""

    def __init__(self, node: Table, report: Report, known: Collection[str], *, step: str = "", path: str = "") -> None:
        self.node = node
        self.report = report
        self.step = step
        self._path = path
        self._check_keys(known)

    def has(self, name: str) -> bool:
        """Whether the key or an alias of it has a value; a key with nothing behind it counts as absent."""
        return self._key(name) is not None

    def is_table(self, name: str) -> bool:
        """Whether the key's value is a mapping."""
        key = self._key(name)
        return key is not None and isinstance(self.node.entries[key], Table)

    def read(self, name: str, reader: Reader[T], default: T) -> T:
        """What the reader makes of the key's value; the default when it is absent or wrong, which is reported."""
        key = self._key(name)
        if key is None:
            return default
        return self.value(self.node.entries[key], reader, default, key, line=self.node.key_lines[key])

    def value(self, node: Node, reader: Reader[T], default: T, key: str, *, line: int = 0) -> T:
        """What the reader makes of a node found under this mapping."""
        try:
            return reader(node)
        except Wrong as exc:
            self.error(str(exc), key, line=line or node.line)
            return default

    def table(self, name: str, known: Collection[str]) -> Fields | None:
        """The mapping under a key."""
        node = self.read(name, table, None)
        return None if node is None else self.inside(name, node, known)

    def inside(self, name: str, node: Table, known: Collection[str]) -> Fields:
        """The fields of a mapping found under this one; `name` may be a path."""
        return Fields(node, self.report, known, step=self.step, path=f"{self._path}{name}.")

    def entries(self, name: str) -> list[tuple[str, Node]]:
        """The entries of the mapping under a key, as they are."""
        node = self.read(name, table, None)
        return [] if node is None else list(node.entries.items())

    def error(self, message: str, key: str, *, line: int = 0) -> None:
        self.report.error(line or line_of(self.node, key), message, step=self.step, key=self._path + key)

    def warn(self, message: str, key: str) -> None:
        self.report.warn(line_of(self.node, key), message, step=self.step, key=self._path + key)

    def _key(self, name: str) -> str | None:
        entries = self.node.entries
        return next(
            (key for key in (name, *ALIASES.get(name, ())) if key in entries and not _is_null(entries[key])), None
        )

    def _check_keys(self, known: Collection[str]) -> None:
        allowed = {key for name in known for key in (name, *ALIASES.get(name, ()))}
        for key, line in self.node.key_lines.items():
            if key not in allowed:
                self._unknown(key, line, allowed)
        for name in known:
            given = [key for key in (name, *ALIASES.get(name, ())) if key in self.node.entries]
            if len(given) > 1:
                self.error(f"says the same as the key {given[0]!r}; keep one of them", given[1])

    def _unknown(self, key: str, line: int, allowed: Collection[str]) -> None:
        shown = self._path + (key if len(key) <= 64 else key[:64] + "...")
        if key in WITHOUT_EFFECT:
            self.report.warn(line, "this key has no effect", step=self.step, key=shown)
        elif key in LATER:
            message = f"this version does not run {key!r}; a pipeline that needs it is refused"
            self.report.error(line, message, step=self.step, key=shown)
        else:
            message = f"unknown key {quoted(key)}{self.report.suggest(key, allowed)}"
            self.report.error(line, message, step=self.step, key=shown)


def what(node: Node) -> str:
    """The node as an error message names it."""
    if isinstance(node, Table):
        return "a mapping"
    if isinstance(node, Items):
        return "a list"
    return "nothing" if node.value is None else quoted(node.text)


def text(node: Node) -> str:
    """Text, or a number, which is taken as it is written (`version: 1.10`)."""
    if isinstance(node, Scalar) and node.value is not None:
        return node.text
    raise Wrong(f"must be text, not {what(node)}")


def identifier(node: Node) -> str:
    """An id: a letter, then letters, digits, `_` and `-`."""
    return _matching(text(node), _IDENTIFIER, "an id is a letter, then up to 63 letters, digits, _ or -")


def name(node: Node) -> str:
    """A name that templates can use."""
    found = _matching(text(node), _NAME, "a name is a letter or _, then up to 63 letters, digits or _")
    if found in _RESERVED or found.startswith("__"):
        raise Wrong(f"{found!r} is a word of the template language; choose another name")
    return found


def is_identifier(value: str) -> bool:
    return _IDENTIFIER.fullmatch(value) is not None


def integer(least: int, most: int) -> Reader[int]:
    """A whole number within bounds."""

    def read(node: Node) -> int:
        if isinstance(node, Scalar) and type(node.value) is int and least <= node.value <= most:
            return node.value
        raise Wrong(f"must be a whole number from {least} to {most}, not {what(node)}")

    return read


def number(least: float, most: float) -> Reader[float]:
    """A number within bounds."""

    def read(node: Node) -> float:
        if isinstance(node, Scalar) and type(node.value) in (int, float) and least <= float(node.text) <= most:
            return float(node.text)
        raise Wrong(f"must be a number from {least:g} to {most:g}, not {what(node)}")

    return read


def boolean(node: Node) -> bool:
    """`true` or `false`."""
    if isinstance(node, Scalar) and isinstance(node.value, bool):
        return node.value
    raise Wrong(f"must be true or false, not {what(node)}")


def duration(least: int, most: int) -> Reader[int]:
    """Seconds, written as 300 or as 90s, 30m, 2h, 1d."""

    def read(node: Node) -> int:
        found = _DURATION.fullmatch(node.text) if isinstance(node, Scalar) else None
        seconds = int(found[1]) * _SECONDS[found[2]] if found else -1
        if least <= seconds <= most:
            return seconds
        raise Wrong(f"must be a time from {least} to {most} seconds, such as 300 or 30m, not {what(node)}")

    return read


def seconds(least: int, most: int) -> Reader[float]:
    """Seconds, of which parts are allowed: 0.5, 5, 5s, 1m."""

    def read(node: Node) -> float:
        if isinstance(node, Scalar) and isinstance(node.value, float):
            return number(least, most)(node)
        return float(duration(least, most)(node))

    return read


def size_mb(least: int, most: int) -> Reader[int]:
    """Mebibytes, written as 512 or as 512m, 2g."""

    def read(node: Node) -> int:
        found = _SIZE.fullmatch(node.text) if isinstance(node, Scalar) else None
        size = _megabytes(int(found[1]), found[2].lower()) if found else -1
        if least <= size <= most:
            return size
        raise Wrong(f"must be a size from {least}m to {most}m, such as 512m or 2g, not {what(node)}")

    return read


def one_of(*choices: str) -> Reader[str]:
    """One of a few words."""

    def read(node: Node) -> str:
        found = text(node)
        if found in choices:
            return found
        raise Wrong(f"must be one of {', '.join(choices)}, not {what(node)}")

    return read


def list_of(reader: Reader[T]) -> Reader[tuple[T, ...]]:
    """A list; a single value counts as a list of one. No value may be there twice."""

    def read(node: Node) -> tuple[T, ...]:
        found: dict[T, None] = {}
        for item in entries(node) if isinstance(node, Items) else [node]:
            value = reader(item)
            if value in found:
                raise Wrong(f"{value!r} is there twice")
            found[value] = None
        return tuple(found)

    return read


def _is_null(node: Node) -> bool:
    return isinstance(node, Scalar) and node.value is None


def entries(node: Node) -> list[Node]:
    """The entries of a list that is not too long."""
    if not isinstance(node, Items):
        raise Wrong(f"must be a list, not {what(node)}")
    if len(node.items) > MAX_ITEMS:
        raise Wrong(f"holds {len(node.items)} entries, at most {MAX_ITEMS} are allowed")
    return node.items


def table(node: Node) -> Table | None:
    """A mapping."""
    if isinstance(node, Table):
        return node
    raise Wrong(f"must be a mapping, not {what(node)}")


def _matching(value: str, pattern: re.Pattern[str], rule: str) -> str:
    if pattern.fullmatch(value):
        return value
    raise Wrong(f"{quoted(value)}: {rule}")


def _megabytes(count: int, unit: str) -> int:
    return {"k": count // 1024, "g": count * 1024}.get(unit, count)
