"""From YAML text to nodes that know their lines.

The tree is built from the parser's events, one by one, so a bound is checked before anything is built: no recursion, no
aliases to expand, no constructors. Scalars follow the YAML 1.2 core schema: `YES`, `ON` and dates are text.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field

import yaml
from pydantic import JsonValue

from djinn.documents.report import Report, quoted

MAX_BYTES = 256 * 1024
MAX_DEPTH = 50
MAX_NODES = 20_000
MAX_INTEGER = 2**63 - 1

_NULL = re.compile(r"|~|null|Null|NULL")
_TRUE = re.compile(r"true|True|TRUE")
_FALSE = re.compile(r"false|False|FALSE")
_INTEGER = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


@dataclass(frozen=True)
class Scalar:
    """A value without parts. `text` is what the file says, `value` what it means."""

    line: int
    text: str
    value: str | int | float | bool | None
    is_block: bool = False


@dataclass(frozen=True)
class Items:
    """A list."""

    line: int
    items: list[Node] = field(default_factory=list)


@dataclass(frozen=True)
class Table:
    """A mapping; `key_lines` says where each key stands."""

    line: int
    entries: dict[str, Node] = field(default_factory=dict)
    key_lines: dict[str, int] = field(default_factory=dict)


Node = Scalar | Items | Table


def line_of(node: Node, *path: str) -> int:
    """The line of the key at the end of the path, or of the deepest key on it that exists."""
    line = node.line
    for key in path:
        if not isinstance(node, Table) or key not in node.entries:
            break
        line, node = node.key_lines[key], node.entries[key]
    return line


def line_at(node: Node, *path: str) -> int:
    """As `line_of`, through lists too: their entries are counted from 0."""
    line = node.line
    for key in path:
        if isinstance(node, Items) and key.isdecimal() and int(key) < len(node.items):
            node = node.items[int(key)]
            line = node.line
        elif isinstance(node, Table) and key in node.entries:
            line, node = node.key_lines[key], node.entries[key]
        else:
            break
    return line


def plain(node: Node) -> JsonValue:
    """The node as JSON, whatever it is."""
    if isinstance(node, Table):
        return {key: plain(value) for key, value in node.entries.items()}
    if isinstance(node, Items):
        return [plain(item) for item in node.items]
    return node.value


def read_document(
    text: str | bytes, report: Report, *, like: str = "`id: ...`, `steps: ...`", may_be_empty: bool = False
) -> Table | None:
    """The one mapping that the text holds; None after what is wrong was reported. `like` shows what it looks like."""
    decoded = _decode(text, report)
    if decoded is None:
        return None
    builder = _Builder(report)
    try:
        for event in yaml.parse(decoded, Loader=yaml.CSafeLoader):
            if not builder.accepts(event):
                return None
    except yaml.YAMLError as exc:
        report.error(*_syntax_problem(exc, decoded))
        return None
    if may_be_empty and (builder.root is None or (isinstance(builder.root, Scalar) and builder.root.text == "")):
        return Table(1)
    return _only_table(builder.root, report, like)


def _decode(text: str | bytes, report: Report) -> str | None:
    if len(text) > MAX_BYTES or (isinstance(text, str) and len(text.encode("utf-8", "replace")) > MAX_BYTES):
        report.error(1, f"the file is larger than {MAX_BYTES // 1024} KiB")
        return None
    try:
        decoded = text.decode("utf-8-sig") if isinstance(text, bytes) else text
    except UnicodeDecodeError as exc:
        report.error(exc.object.count(b"\n", 0, exc.start) + 1, f"the file is not UTF-8 (byte {exc.start})")
        return None
    found = _UNSTORABLE.search(decoded)
    if found is None:
        return decoded
    what = "a NUL character" if found[0] == "\x00" else "half of a surrogate pair"
    report.error(decoded.count("\n", 0, found.start()) + 1, f"the file holds {what}")
    return None


def _only_table(root: Node | None, report: Report, like: str) -> Table | None:
    if root is None or (isinstance(root, Scalar) and root.text == ""):
        report.error(1, "the file is empty")
        return None
    if not isinstance(root, Table):
        what = "a list" if isinstance(root, Items) else "a single value"
        report.error(root.line, f"the file must be a mapping ({like}), not {what}")
        return None
    return root


def _syntax_problem(exc: yaml.YAMLError, text: str) -> tuple[int, str]:
    mark = (exc.problem_mark or exc.context_mark) if isinstance(exc, yaml.MarkedYAMLError) else None
    if mark is None:
        position = getattr(exc, "position", None) or 0
        return text.count("\n", 0, position) + 1, f"not YAML: {getattr(exc, 'reason', None) or exc}"
    lines = text.splitlines()
    line = lines[mark.line] if mark.line < len(lines) else ""
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return mark.line + 1, "a tab indents this line; YAML is indented with spaces"
    parts = [getattr(exc, "context", None), getattr(exc, "problem", None)]
    return mark.line + 1, "not YAML: " + ", ".join(part for part in parts if part)


@dataclass
class _Frame:
    """A list or mapping that is still open. `key` is the mapping's key that waits for its value."""

    node: Node
    key: str | None = None
    is_dropped: bool = False


class _Builder:
    """Takes the events in order and keeps the open collections on a stack of its own."""

    def __init__(self, report: Report) -> None:
        self.root: Node | None = None
        self._report = report
        self._stack: list[_Frame] = []
        self._nodes = 0
        self._documents = 0

    def accepts(self, event: yaml.Event) -> bool:
        """Takes one event; False, after a report, when reading must stop."""
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            return self._documents == 1 or self._refuse(line, "the file holds several documents; it may hold one")
        if isinstance(event, yaml.AliasEvent):
            return self._refuse(line, f"aliases are not allowed (*{event.anchor}); write the value again")
        if isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
            self._close()
        elif isinstance(event, yaml.NodeEvent):
            return self._node(event, line)
        return True

    def _node(self, event: yaml.NodeEvent, line: int) -> bool:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            return self._refuse(line, f"the file holds more than {MAX_NODES} values")
        if len(self._stack) >= MAX_DEPTH and not isinstance(event, yaml.ScalarEvent):
            return self._refuse(line, f"values are nested deeper than {MAX_DEPTH} levels")
        if event.anchor is not None:
            return self._refuse(line, f"anchors are not allowed (&{event.anchor}); write the value again")
        if isinstance(event, (yaml.ScalarEvent, yaml.CollectionStartEvent)) and event.tag is not None:
            return self._refuse(line, f"tags are not allowed ({quoted(event.tag)})")
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event, line)
        node: Node = Table(line) if isinstance(event, yaml.MappingStartEvent) else Items(line)
        self._attach(node)
        self._stack.append(_Frame(node))
        return True

    def _scalar(self, event: yaml.ScalarEvent, line: int) -> bool:
        text = event.value
        if _UNSTORABLE.search(text):
            return self._refuse(line, "a text holds a NUL character")
        value = plain_value(text) if event.style in (None, "") else text
        self._attach(Scalar(line, text, value, is_block=event.style in ("|", ">")))
        return True

    def _attach(self, node: Node) -> None:
        if not self._stack:
            self.root = node
            return
        frame = self._stack[-1]
        if isinstance(frame.node, Items):
            frame.node.items.append(node)
        elif isinstance(frame.node, Table) and frame.key is None:
            self._take_key(frame, frame.node, node)
        elif isinstance(frame.node, Table) and frame.key is not None:
            if not frame.is_dropped:
                frame.node.entries[frame.key] = node
            frame.key = None

    def _take_key(self, frame: _Frame, table: Table, node: Node) -> None:
        if not isinstance(node, Scalar):
            frame.key, frame.is_dropped = "", True
            self._report.error(node.line, "a key must be plain text; put a template such as '{{ topic }}' in quotes")
            return
        frame.key, frame.is_dropped = node.text, node.text in table.key_lines
        if frame.is_dropped:
            first = table.key_lines[node.text]
            self._report.error(node.line, f"the key {quoted(node.text)} is there twice; first on line {first}")
        else:
            table.key_lines[node.text] = node.line

    def _close(self) -> None:
        self._stack.pop()

    def _refuse(self, line: int, message: str) -> bool:
        self._report.error(line, message)
        return False


def plain_value(text: str) -> str | int | float | bool | None:
    """What a plain scalar means by the YAML 1.2 core schema; numbers that JSON cannot hold stay text."""
    if _NULL.fullmatch(text):
        return None
    if _TRUE.fullmatch(text) or _FALSE.fullmatch(text):
        return text[0] in "tT"
    if _INTEGER.fullmatch(text) and len(text) <= 20 and abs(int(text)) <= MAX_INTEGER:
        return int(text)
    if _FLOAT.fullmatch(text) and not _INTEGER.fullmatch(text) and math.isfinite(float(text)):
        return float(text)
    return text
