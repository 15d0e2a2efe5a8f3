"""The values that a run is started with: what a file declares, and what somebody gives."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import cast

from djinn.documents.nodes import Items, Node, Scalar, Table
from djinn.documents.report import quoted, suggestion
from djinn.pipelines import readers as read
from djinn.pipelines.errors import InputsInvalid
from djinn.pipelines.fields import Fields
from djinn.pipelines.readers import Wrong
from djinn.pipelines.schema import JSON, Input, InputType, Pipeline
from djinn.pipelines.structured import is_deeper

TYPE = read.one_of("string", "text", "integer", "number", "boolean", "list", "json")
INPUT_KEYS: read.Keys = {
    "type": TYPE.schema,
    "default": {},
    "required": read.boolean.schema,
    "description": read.text.schema,
    "choices": {"type": "array", "minItems": 1, "maxItems": read.MAX_ITEMS},
}
INPUTS_SCHEMA: read.Schema = {
    "type": "object",
    "propertyNames": dict(read.name.schema),
    "additionalProperties": dict(read.either(TYPE.schema, read.mapping(INPUT_KEYS))),
}
MAX_TEXT = 262_144
MAX_DEPTH = 50

_INTEGER = re.compile(r"[-+]?[0-9]{1,18}")
_NUMBER = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]{1,3})?")
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_MEANING = {
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "string": "text",
    "text": "text",
    "list": "a list",
    "json": "JSON",
}


def resolve_inputs(pipeline: Pipeline, given: Mapping[str, JSON]) -> dict[str, JSON]:
    """A value for every declared input: the given one, in the declared type, or the default.

    Text such as "3" is taken as a number or a boolean where the type says so; null counts as not given. Raises
    `InputsInvalid` with everything that is wrong.
    """
    values: dict[str, JSON] = {}
    problems: dict[str, str] = {}
    declared = {declared.name: declared for declared in pipeline.inputs}
    for name in given:
        if name not in declared:
            problems[name] = f"there is no such input{suggestion(name, declared)}"
    for name, declaration in declared.items():
        try:
            values[name] = _resolved(declaration, given.get(name))
        except Wrong as exc:
            problems[name] = str(exc)
    if problems:
        raise InputsInvalid(problems)
    return values


def read_inputs(document: Fields) -> tuple[Input, ...]:
    """The inputs that a file declares: `topic: text`, or `topic: {type: text, default: ...}`."""
    table = document.read("inputs", read.table, None)
    found = []
    for name, node in () if table is None else table.entries.items():
        key, line = f"inputs.{name[:64]}", table.key_lines[name] if table else 0
        if document.value(Scalar(line, name, name), read.name, "", key):
            found.append(_read_input(document, name, node, key))
    return tuple(found)


def coerced(value: JSON, kind: InputType) -> JSON:
    """The value in that type; raises `Wrong` when it does not fit."""
    if kind in ("string", "text"):
        return _text(value)
    if kind in ("list", "json"):
        return _data(value, kind)
    text = value.strip() if isinstance(value, str) else ""
    if kind == "boolean":
        found: JSON = {"true": True, "false": False}.get(text.lower()) if text else value
        if isinstance(found, bool):
            return found
    elif text and (_INTEGER if kind == "integer" else _NUMBER).fullmatch(text):
        return int(text) if _INTEGER.fullmatch(text) else _finite(float(text))
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        return _number(value, kind)
    raise Wrong(f"must be {_MEANING[kind]}, not {_shown(value)}")


def _resolved(declaration: Input, given: JSON) -> JSON:
    if given is None:
        if declaration.required:
            raise Wrong(f"is required ({_MEANING[declaration.type]})")
        return declaration.default
    value = coerced(given, declaration.type)
    if declaration.choices and value not in declaration.choices:
        raise Wrong(f"must be one of {', '.join(map(_shown, declaration.choices))}, not {_shown(value)}")
    return value


def _text(value: JSON) -> str:
    if not isinstance(value, str):
        raise Wrong(f"must be text, not {_shown(value)}")
    if len(value) > MAX_TEXT:
        raise Wrong(f"is {len(value)} characters long, at most {MAX_TEXT} are allowed")
    if _UNSTORABLE.search(value):
        raise Wrong("holds a NUL character or half of a surrogate pair")
    return value


def _data(value: JSON, kind: InputType) -> JSON:
    """A list, or any JSON; a text is read as the text of one."""
    if isinstance(value, str):
        value = _parsed(_text(value), kind)
    if kind == "list" and not isinstance(value, list):
        raise Wrong(f"must be a list, not {_shown(value)}")
    _check_data(value)
    return value


def _parsed(text: str, kind: InputType) -> JSON:
    try:
        return cast("JSON", json.loads(text))
    except (ValueError, RecursionError) as exc:
        raise Wrong(f"must be {_MEANING[kind]}; the text {_shown(text)} is no JSON: {str(exc)[:100]}") from exc


def _check_data(value: JSON) -> None:
    if is_deeper(value, MAX_DEPTH):
        raise Wrong(f"is nested deeper than {MAX_DEPTH} levels")
    waiting = [value]
    while waiting:
        part = waiting.pop()
        if isinstance(part, str):
            _text(part)
        elif isinstance(part, (int, float)):
            _number(part, "number")
        else:
            waiting.extend(part if isinstance(part, list) else [*(part or {}), *(part or {}).values()])
    size = len(json.dumps(value))
    if size > MAX_TEXT:
        raise Wrong(f"is {size} bytes long as JSON, at most {MAX_TEXT} are allowed")


def _number(value: float, kind: InputType) -> JSON:
    if isinstance(value, int):
        if abs(value) >= 10**18:
            raise Wrong("is too large a number")
        return value
    if kind == "integer" and _finite(value).is_integer():
        return _number(int(value), kind)
    if kind == "integer":
        raise Wrong(f"must be a whole number, not {value!r}")
    return _finite(value)


def _finite(value: float) -> float:
    if math.isfinite(value):
        return value
    raise Wrong("is not a finite number")


def _shown(value: JSON) -> str:
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, (list, dict)):
        return "a list" if isinstance(value, list) else "a mapping"
    if isinstance(value, float):
        return repr(value)
    return json.dumps(value) if not isinstance(value, int) or abs(value) < 10**18 else "so large a number"


def _read_input(document: Fields, name: str, node: Node, key: str) -> Input:
    if not isinstance(node, Table):
        kind = document.value(node, TYPE, "string", key)
        return Input(name, cast("InputType", kind))
    fields = document.inside(key, node, INPUT_KEYS)
    kind = cast("InputType", fields.read("type", TYPE, "string"))
    choices: tuple[JSON, ...] = fields.read("choices", lambda found: _values(found, kind), ())
    default = fields.read("default", lambda found: _value(found, kind), None)
    if default is not None and choices and default not in choices:
        fields.error("is not one of the choices", "default")
    required = fields.read("required", read.boolean, not fields.has("default"))
    if required and fields.has("default"):
        fields.error("an input with a default is not required", "required")
    return Input(name, kind, default, required, fields.read("description", read.text, ""), choices)


def _value(node: Node, kind: InputType) -> JSON:
    if kind in ("list", "json"):
        return coerced(read.data(node), kind)
    if not isinstance(node, Scalar):
        raise Wrong(f"must be {_MEANING[kind]}, not {read.what(node)}")
    return coerced(node.text if kind in ("string", "text") else node.value, kind)


def _values(node: Node, kind: InputType) -> tuple[JSON, ...]:
    if not isinstance(node, Items) or not node.items:
        raise Wrong(f"must be a list with at least one value, not {read.what(node)}")
    return tuple(_value(item, kind) for item in read.entries(node))
