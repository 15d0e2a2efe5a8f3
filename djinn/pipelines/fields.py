"""Reading a YAML mapping key by key: every wrong key is reported and reading goes on with a default.

The classes of pydantic are not used for this edge: they know neither lines nor the words of this language, and stop at
the first wrong key of a part that depends on others.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TypeVar

from djinn.documents.nodes import Node, Scalar, Table, line_of
from djinn.documents.report import Report, quoted
from djinn.pipelines.readers import ALIASES, Wrong, is_null, table

T = TypeVar("T")

HINTS = {
    "join": "'needs' on a step with 'foreach' or 'matrix' is the join: it waits for all items and gets lists",
    "if": "a condition is written as 'when'",
}
"""What to say of keys that this language knows under another word."""
NOTHING = Scalar(0, "", None)


class Fields:
    """The keys of one mapping.

    `known` are the keys it may have, `idle` those that files of other systems carry and that have no effect here; all
    others are reported at once.
    """

    def __init__(
        self,
        node: Table,
        report: Report,
        known: Collection[str],
        *,
        step: str = "",
        path: str = "",
        idle: Collection[str] = (),
    ) -> None:
        self.node = node
        self.report = report
        self.step = step
        self._path = path
        self._idle = idle
        self._check_keys(known)

    def has(self, name: str) -> bool:
        """Whether the key or an alias of it has a value; a key with nothing behind it counts as absent."""
        return self._key(name) is not None

    def is_table(self, name: str) -> bool:
        """Whether the key's value is a mapping."""
        key = self._key(name)
        return key is not None and isinstance(self.node.entries[key], Table)

    def read(self, name: str, reader: Callable[[Node], T], default: T) -> T:
        """What the reader makes of the key's value; the default when it is absent or wrong, which is reported."""
        key = self._key(name)
        if key is None:
            return default
        return self.value(self.node.entries[key], reader, default, key, line=self.node.key_lines[key])

    def value(self, node: Node, reader: Callable[[Node], T], default: T, key: str, *, line: int = 0) -> T:
        """What the reader makes of a node found under this mapping."""
        try:
            return reader(node)
        except Wrong as exc:
            self.error(str(exc), key, line=line or node.line)
            return default

    def table(self, name: str, known: Collection[str], *, idle: Collection[str] = ()) -> Fields | None:
        """The mapping under a key."""
        node = self.read(name, table, None)
        return None if node is None else self.inside(name, node, known, idle=idle)

    def inside(self, name: str, node: Table, known: Collection[str], *, idle: Collection[str] = ()) -> Fields:
        """The fields of a mapping found under this one; `name` may be a path."""
        return Fields(node, self.report, known, step=self.step, path=f"{self._path}{name}.", idle=idle)

    def entries(self, name: str) -> list[tuple[str, Node]]:
        """The entries of the mapping under a key, as they are."""
        node = self.read(name, table, None)
        return [] if node is None else list(node.entries.items())

    def error(self, message: str, key: str, *, line: int = 0) -> None:
        self.report.error(line or line_of(self.node, key), message, step=self.step, key=self._path + key)

    def warn(self, message: str, key: str) -> None:
        self.report.warn(line_of(self.node, key), message, step=self.step, key=self._path + key)

    def _key(self, name: str) -> str | None:
        keys = (name, *ALIASES.get(name, ()))
        return next((key for key in keys if not is_null(self.node.entries.get(key, NOTHING))), None)

    def _check_keys(self, known: Collection[str]) -> None:
        allowed = {key for name in known for key in (name, *ALIASES.get(name, ()))}
        for key, line in self.node.key_lines.items():
            if key not in allowed:
                self._unknown(key, line, allowed)
        for name in known:
            given = [key for key in (name, *ALIASES.get(name, ())) if not is_null(self.node.entries.get(key, NOTHING))]
            if len(given) > 1:
                self.error(f"says the same as the key {given[0]!r}; keep one of them", given[1])

    def _unknown(self, key: str, line: int, allowed: Collection[str]) -> None:
        shown = self._path + (key if len(key) <= 64 else key[:64] + "...")
        if key in self._idle:
            self.report.warn(line, "this key has no effect", step=self.step, key=shown)
        else:
            hint = f"; {HINTS[key]}" if key in HINTS else self.report.suggest(key, allowed)
            message = f"unknown key {quoted(key)}{hint}"
            self.report.error(line, message, step=self.step, key=shown)
