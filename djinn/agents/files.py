"""The files of an agent's folder, read within bounds: text, and YAML whose keys know their lines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from djinn.agents.errors import AgentInvalid
from djinn.documents.nodes import Table, line_at, plain, read_document
from djinn.documents.problems import Problem, Severity
from djinn.documents.report import Report, suggestion

LARGEST_FILE = 256 * 1024
LIKE = "`name: ...`"

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class Values:
    """The keys of a file. `name` is the file as an error names it, with its folder; `table` is what they stand in."""

    name: str
    values: Mapping[str, object]
    lines: Mapping[str, int]
    table: Table = field(default_factory=lambda: Table(1))

    def problem(self, key: str, message: str, severity: Severity = "error") -> Problem:
        """What is wrong at a key; `key` may be a path, of which the deepest part that exists has the line."""
        first, *rest = key.split(".")
        line = line_at(self.table, first, *rest) if first in self.table.entries else self.lines.get(first, 1)
        return Problem(self.name, line, message, key=key, severity=severity)


def shown(path: Path) -> str:
    """The file as an error names it: with its folder."""
    return f"{path.parent.name}/{path.name}"


def wrong(path: Path, message: str, line: int = 1) -> AgentInvalid:
    """The error about a file as a whole."""
    return AgentInvalid(Problem(shown(path), line, message))


def read_text(path: Path) -> str:
    """The text of a regular file; raises `AgentInvalid` when it is none, too large, not UTF-8 or holds a NUL."""
    content = _read_bytes(path)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise wrong(path, "cannot be read: it is not UTF-8", content.count(b"\n", 0, exc.start) + 1) from exc
    if len(content) > LARGEST_FILE:
        raise wrong(path, f"is larger than {LARGEST_FILE} bytes")
    if "\0" in text:
        raise wrong(path, "holds a NUL character", text.count("\n", 0, text.index("\0")) + 1)
    return text


def read_values(path: Path) -> Values:
    """The mapping that a YAML file holds; an empty file has no keys. Raises `AgentInvalid` with everything wrong."""
    report = Report(shown(path))
    table = read_document(_read_bytes(path), report, like=LIKE, may_be_empty=True)
    if table is None or report.has_errors:
        raise AgentInvalid(*report.problems)
    values = {key: plain(node) for key, node in table.entries.items()}
    return Values(report.file, values, table.key_lines, table)


def validated(model: type[Model], values: Values) -> Model:
    """The values as the model wants them; a key with nothing behind it counts as absent. Raises `AgentInvalid` with
    everything wrong, each with its line."""
    known = {name for key, one in model.model_fields.items() for name in (key, one.alias or key)}
    given = {key: value for key, value in values.values.items() if value is not None or key not in known}
    try:
        return model.model_validate(given)
    except ValidationError as exc:
        words = {one.alias or key for key, one in model.model_fields.items()}
        raise AgentInvalid(*(_problem(values, error, words) for error in exc.errors())) from exc


def _problem(values: Values, error: ErrorDetails, known: set[str]) -> Problem:
    key = ".".join(map(str, error["loc"]))
    if error["type"] == "extra_forbidden":
        return values.problem(key, f"unknown key {key[:64]!r}{suggestion(key, known)}")
    if error["type"] == "missing":
        return values.problem(key, "is missing")
    return values.problem(key, f"{error['msg']}, not {str(error['input'])[:80]!r}")


def _read_bytes(path: Path) -> bytes:
    """The bytes of a regular file, one more than allowed when it is too large."""
    try:
        if path.exists() and not path.is_file():
            raise wrong(path, "cannot be read: it is not a regular file")
        with path.open("rb") as stream:
            return stream.read(LARGEST_FILE + 1)
    except OSError as exc:
        raise wrong(path, f"cannot be read: {exc.strerror}") from exc
