"""What may stand behind a key: for each kind of value how it is read, and its JSON Schema for editors."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from djinn.pipelines.document import Items, Node, Scalar, Table
from djinn.pipelines.report import quoted
from djinn.pipelines.schema import JSON

T = TypeVar("T")
Schema = Mapping[str, JSON]
Keys = Mapping[str, Schema]
"""The keys of a mapping of the language, each with the schema of its value."""

ALIASES: dict[str, tuple[str, ...]] = {
    "timeout": ("timeoutSeconds",),
    "retries": ("maxRetries",),
}
MAX_ITEMS = 200
MAX_GLOB = 256
RETRYABLE_REASONS = frozenset(
    ["error", "timeout", "out_of_memory", "output_limit", "disk", "turns", "model", "invalid_output", "unmatched"]
)
"""The failures of a step that are charged to it and that another try may mend."""

_IDENTIFIER = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,63}")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_PERSON = re.compile(r"[\w.@+-]{1,150}")
_RESERVED = frozenset(
    [
        *("true", "false", "none", "True", "False", "None", "and", "or", "not", "in", "is"),
        *("if", "elif", "else", "endif", "for", "endfor", "loop"),
    ]
)
_DURATION = re.compile(r"([0-9]{1,9}) ?([smhd]?)")
_SIZE = re.compile(r"([0-9]{1,9}) ?([kmgKMG]?)(?:[iI]?[bB])?")
_SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}


class Wrong(Exception):
    """A value that a reader refuses; the message says what it should be."""


@dataclass(frozen=True)
class Reader(Generic[T]):
    """Reads one kind of value from a node, or raises `Wrong`."""

    read: Callable[[Node], T]
    schema: Schema

    def __call__(self, node: Node) -> T:
        return self.read(node)

    def or_none(self, node: Node) -> T | None:
        """The same value, for a key whose default is None."""
        return self.read(node)


def mapping(keys: Keys, *, required: Collection[str] = (), idle: Collection[str] = ()) -> Schema:
    """The JSON Schema of a mapping with these keys; those that are not required may be null, idle ones anything."""
    properties: dict[str, JSON] = {key: {"description": "Has no effect."} for key in sorted(idle)}
    for key, schema in keys.items():
        for name in (key, *ALIASES.get(key, ())):
            properties[name] = dict(schema if key in required else either(schema, {"type": "null"}))
    found: dict[str, JSON] = {"type": "object", "properties": properties, "additionalProperties": False}
    return {**found, "required": [*required]} if required else found


def either(*schemas: Schema) -> Schema:
    """The JSON Schema of what one of several describes."""
    return {"anyOf": [dict(schema) for schema in schemas]}


def what(node: Node) -> str:
    """The node as an error message names it."""
    if isinstance(node, Table):
        return "a mapping"
    if isinstance(node, Items):
        return "a list"
    return "nothing" if node.value is None else quoted(node.text)


def is_null(node: Node) -> bool:
    return isinstance(node, Scalar) and node.value is None


def is_identifier(value: str) -> bool:
    return _IDENTIFIER.fullmatch(value) is not None


def is_name(value: str) -> bool:
    """Whether templates can use it as a name."""
    return _NAME.fullmatch(value) is not None and value not in _RESERVED and not value.startswith("__")


def data(node: Node) -> JSON:
    """The node as JSON, whatever it is."""
    if isinstance(node, Table):
        return {key: data(value) for key, value in node.entries.items()}
    if isinstance(node, Items):
        return [data(item) for item in node.items]
    return node.value


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


def _text(node: Node) -> str:
    if isinstance(node, Scalar) and node.value is not None:
        return node.text
    raise Wrong(f"must be text, not {what(node)}")


def _word(node: Node) -> str:
    """Text that is no `true` or `false`."""
    if isinstance(node, Scalar) and isinstance(node.value, bool):
        raise Wrong(f"must be text, not {what(node)}; put it in quotes")
    return _text(node)


def _identifier(node: Node) -> str:
    return _matching(_word(node), _IDENTIFIER, "an id is a letter, then up to 63 letters, digits, _ or -")


def _name(node: Node) -> str:
    found = _matching(_text(node), _NAME, "a name is a letter or _, then up to 63 letters, digits or _")
    if not is_name(found):
        raise Wrong(f"{found!r} is a word of the template language; choose another name")
    return found


def _person(node: Node) -> str:
    return _matching(_word(node), _PERSON, "a person is a role (operator, admin) or somebody's user name")


def _boolean(node: Node) -> bool:
    if isinstance(node, Scalar) and isinstance(node.value, bool):
        return node.value
    raise Wrong(f"must be true or false, not {what(node)}")


def _glob(node: Node) -> str:
    found = _word(node)
    problem = _glob_problem(found)
    if problem:
        raise Wrong(f"{quoted(found)}: a pattern of files {problem}")
    return found


def _glob_problem(pattern: str) -> str:
    parts = pattern.split("/")
    if not pattern.strip() or len(pattern) > MAX_GLOB:
        return f"has 1 to {MAX_GLOB} characters"
    if pattern.startswith("/") or ".." in parts:
        return "stays in the workspace: no / at its beginning, no .."
    if "" in parts or "." in parts:
        return "has no empty parts and no parts that are a dot"
    if any("**" in part and part != "**" for part in parts):
        return "has ** for whole directories only"
    return "" if pattern.isprintable() and "\\" not in pattern else "has no backslash and no control character"


def _retryable(node: Node) -> str:
    reason = _text(node)
    if reason in RETRYABLE_REASONS:
        return reason
    raise Wrong(f"{reason[:64]!r} is not a reason that can be tried again: {', '.join(sorted(RETRYABLE_REASONS))}")


text = Reader(_text, {"type": ["string", "number", "boolean"]})
"""Text, or a number, which is taken as it is written (`version: 1.10`)."""
identifier = Reader(_identifier, {"type": "string", "pattern": f"^{_IDENTIFIER.pattern}$"})
"""An id: a letter, then letters, digits, `_` and `-`."""
name = Reader(_name, {"type": "string", "pattern": f"^{_NAME.pattern}$", "not": {"enum": [*sorted(_RESERVED)]}})
"""A name that templates can use."""
person = Reader(_person, {"type": ["string", "number"], "pattern": f"^{_PERSON.pattern}$"})
"""A role or a person's user name."""
boolean = Reader(_boolean, {"type": "boolean"})
"""`true` or `false`."""
glob = Reader(_glob, {"type": ["string", "number"], "minLength": 1, "maxLength": MAX_GLOB, "pattern": r"^[^/\\]"})
"""A pattern of files below the workspace: `dist/*.whl`, `**/report.json`."""
retryable = Reader(_retryable, {"enum": [*sorted(RETRYABLE_REASONS)]})
"""A reason of failure that another try may mend."""


def integer(least: int, most: int) -> Reader[int]:
    """A whole number within bounds."""

    def read(node: Node) -> int:
        if isinstance(node, Scalar) and type(node.value) is int and least <= node.value <= most:
            return node.value
        raise Wrong(f"must be a whole number from {least} to {most}, not {what(node)}")

    return Reader(read, {"type": "integer", "minimum": least, "maximum": most})


def number(least: float, most: float) -> Reader[float]:
    """A number within bounds."""

    def read(node: Node) -> float:
        if isinstance(node, Scalar) and type(node.value) in (int, float) and least <= float(node.text) <= most:
            return float(node.text)
        raise Wrong(f"must be a number from {least:g} to {most:g}, not {what(node)}")

    return Reader(read, {"type": "number", "minimum": least, "maximum": most})


def duration(least: int, most: int) -> Reader[int]:
    """Seconds, written as 300 or as 90s, 30m, 2h, 1d."""

    def read(node: Node) -> int:
        found = _DURATION.fullmatch(node.text) if isinstance(node, Scalar) else None
        seconds = int(found[1]) * _SECONDS[found[2]] if found else -1
        if least <= seconds <= most:
            return seconds
        raise Wrong(f"must be a time from {least} to {most} seconds, such as 300 or 30m, not {what(node)}")

    written: Schema = {"type": "string", "pattern": f"^{_DURATION.pattern}$"}
    return Reader(read, {"anyOf": [{"type": "integer", "minimum": least, "maximum": most}, dict(written)]})


def seconds(least: int, most: int) -> Reader[float]:
    """Seconds, of which parts are allowed: 0.5, 5, 5s, 1m."""
    whole, part = duration(least, most), number(least, most)

    def read(node: Node) -> float:
        is_part = isinstance(node, Scalar) and isinstance(node.value, float)
        return part(node) if is_part else float(whole(node))

    return Reader(read, {"anyOf": [dict(part.schema), dict(whole.schema)]})


def size_mb(least: int, most: int) -> Reader[int]:
    """Mebibytes, written as 512 or as 512m, 2g."""

    def read(node: Node) -> int:
        found = _SIZE.fullmatch(node.text) if isinstance(node, Scalar) else None
        size = _megabytes(int(found[1]), found[2].lower()) if found else -1
        if least <= size <= most:
            return size
        raise Wrong(f"must be a size from {least}m to {most}m, such as 512m or 2g, not {what(node)}")

    written: Schema = {"type": "string", "pattern": f"^{_SIZE.pattern}$"}
    return Reader(read, {"anyOf": [{"type": "integer", "minimum": least, "maximum": most}, dict(written)]})


def one_of(*choices: str) -> Reader[str]:
    """One of a few words."""

    def read(node: Node) -> str:
        found = _text(node)
        if found in choices:
            return found
        raise Wrong(f"must be one of {', '.join(choices)}, not {what(node)}")

    return Reader(read, {"enum": [*choices]})


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

    one: JSON = dict(reader.schema)
    several: JSON = {"type": "array", "items": one, "maxItems": MAX_ITEMS, "uniqueItems": True}
    return Reader(read, {"anyOf": [one, several]})


def _matching(value: str, pattern: re.Pattern[str], rule: str) -> str:
    if pattern.fullmatch(value):
        return value
    raise Wrong(f"{quoted(value)}: {rule}")


def _megabytes(count: int, unit: str) -> int:
    return {"k": count // 1024, "g": count * 1024}.get(unit, count)
