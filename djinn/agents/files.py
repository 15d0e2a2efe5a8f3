"""The files of an agent's folder, read within bounds: text, and YAML whose keys know their lines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from djinn.agents.errors import AgentInvalid

LARGEST_FILE = 256 * 1024
DEEPEST = 20

Model = TypeVar("Model", bound=BaseModel)


@dataclass(frozen=True)
class Values:
    """The keys of a YAML file. `name` is the file as an error names it, with its folder."""

    name: str
    values: Mapping[str, object]
    lines: Mapping[str, int]

    def wrong(self, key: str, message: str) -> str:
        """The message with file, line and key before it; `key` may be a path, of which the first part has a line."""
        line = self.lines.get(key.partition(".")[0])
        return f"{self.name}{f':{line}' if line else ''}: {key}: {message}"


def shown(path: Path) -> str:
    """The file as an error names it: with its folder."""
    return f"{path.parent.name}/{path.name}"


def read_text(path: Path) -> str:
    """The text of a regular file; raises `AgentInvalid` when it is none, too large, not UTF-8 or holds a NUL."""
    try:
        if path.exists() and not path.is_file():
            raise AgentInvalid(f"{shown(path)} cannot be read: it is not a regular file")
        with path.open("rb") as stream:
            content = stream.read(LARGEST_FILE + 1)
        text = content.decode("utf-8-sig")
    except OSError as exc:
        raise AgentInvalid(f"{shown(path)} cannot be read: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        line = content.count(b"\n", 0, exc.start) + 1
        raise AgentInvalid(f"{shown(path)}:{line} cannot be read: it is not UTF-8") from exc
    if len(content) > LARGEST_FILE:
        raise AgentInvalid(f"{shown(path)} is larger than {LARGEST_FILE} bytes")
    if "\0" in text:
        raise AgentInvalid(f"{shown(path)}:{_line_of(text, text.index(chr(0)))} holds a NUL character")
    return text


def read_values(path: Path) -> Values:
    """The mapping that a YAML file holds; an empty file has no keys. Raises `AgentInvalid`."""
    text, name = read_text(path), shown(path)
    try:
        _check_bounds(text, name)
        return _values(text, name)
    except yaml.MarkedYAMLError as exc:
        mark = exc.problem_mark or exc.context_mark
        line = f":{mark.line + 1}" if mark else ""
        raise AgentInvalid(f"{name}{line} is not YAML: {exc.problem or exc.context}") from exc
    except (yaml.YAMLError, ValueError) as exc:  # the loader's own words, or what a date or number raised
        raise AgentInvalid(f"{name} is not YAML: {exc}") from exc


def validated(model: type[Model], values: Values) -> Model:
    """The values as the model wants them; raises `AgentInvalid` with everything wrong, each with its line."""
    try:
        return model.model_validate(dict(values.values))
    except ValidationError as exc:
        wrong = [values.wrong(".".join(map(str, error["loc"])), error["msg"]) for error in exc.errors()]
        raise AgentInvalid("; ".join(wrong)) from exc


def _check_bounds(text: str, name: str) -> None:
    """Raise for deep nesting, since the loader recurses in C, where too deep is the end of the process, and for
    aliases, which let a small file become a large value."""
    depth = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        line = event.start_mark.line + 1 if event.start_mark else 1
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise AgentInvalid(f"{name}:{line}: values are nested deeper than {DEEPEST} levels")
        if isinstance(event, yaml.AliasEvent):
            raise AgentInvalid(f"{name}:{line}: aliases are not allowed (*{event.anchor}); write the value again")


def _values(text: str, name: str) -> Values:
    loader = yaml.CSafeLoader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return Values(name, {}, {})
        if not isinstance(root, yaml.MappingNode):
            raise AgentInvalid(f"{name}: the file must be a mapping (`name: ...`)")
        values: dict[str, object] = {}
        lines: dict[str, int] = {}
        for key, value in root.value:
            word, line = str(key.value), key.start_mark.line + 1
            if word in lines:
                raise AgentInvalid(f"{name}:{line}: {word}: this key is there twice; first on line {lines[word]}")
            values[word], lines[word] = loader.construct_object(value, deep=True), line
        return Values(name, values, lines)
    finally:
        loader.dispose()


def _line_of(text: str, position: int) -> int:
    return text.count("\n", 0, position) + 1
