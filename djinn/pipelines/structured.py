"""Steps with an `outputSchema`: whether the schema can be used, and how an answer that follows it becomes outputs.

The answer is checked elsewhere (`executions/structured.py`), under a limit of time: a pattern can take for ever.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from urllib.parse import unquote

from jsonschema.protocols import Validator
from jsonschema.validators import Draft6Validator, Draft7Validator, Draft201909Validator, Draft202012Validator
from referencing import Registry

from djinn.pipelines.schema import JSON

MAX_SCHEMA_BYTES = 64 * 1024
MAX_SCHEMA_DEPTH = 40
MAX_PATTERN_LENGTH = 1000
MAX_PROBLEMS = 20
_DRAFTS: Mapping[str, type[Validator]] = {
    str(draft.META_SCHEMA["$schema"]).removesuffix("#"): draft
    for draft in (Draft6Validator, Draft7Validator, Draft201909Validator, Draft202012Validator)
}
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_HOLD_NAMES = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
_HOLD_DATA = frozenset({"enum", "const", "default", "examples"})


def check_schema(schema: JSON) -> list[str]:
    """What is wrong with a step's schema, at most 20 problems, each with its place; empty when it can be used.

    The schema is of the draft that `$schema` names, else of 2020-12. It refers to nothing outside of itself, so that no
    check ever needs a network.
    """
    if not isinstance(schema, dict):
        return ["it is no mapping"]
    if is_deeper(schema, MAX_SCHEMA_DEPTH):
        return [f"it is nested deeper than {MAX_SCHEMA_DEPTH} levels"]
    try:
        size = len(json.dumps(schema, allow_nan=False).encode())
    except (ValueError, TypeError) as exc:
        return [f"it is no JSON: {exc}"]
    if size > MAX_SCHEMA_BYTES:
        return [f"it has {size} bytes, at most {MAX_SCHEMA_BYTES} are allowed"]
    dialect = _dialect(schema)
    if dialect is None:
        return [f"there is no draft {str(schema['$schema'])[:200]!r}; leave `$schema` out for 2020-12"]
    found = [*_against_draft(dialect, schema), *_references(schema), *_patterns(schema), *_root(schema)]
    return found[:MAX_PROBLEMS]


def output_problems(declared: Sequence[str], schema: Mapping[str, JSON]) -> list[str]:
    """Why a step's declared outputs cannot be told from an answer; empty when they can."""
    whole = [name for name in declared if name not in _properties(schema)]
    if len(whole) > 1:
        names = ", ".join(whole)
        return [f"the outputs {names} are no properties of the schema: only one output can take the whole answer"]
    if not declared and schema.get("type") == "array":
        return ["the answer is a list: declare the one output that takes it"]
    return []


def outputs_from(value: JSON, declared: Sequence[str], schema: Mapping[str, JSON]) -> dict[str, JSON]:
    """The outputs in an answer that follows the schema.

    An output that is a property of the answer takes it, null when the answer leaves it out; one that is not takes the
    whole answer. Without declared outputs each property of the answer is an output.
    """
    given = value if isinstance(value, dict) else {}
    if not declared:
        return dict(given)
    properties = {*_properties(schema), *given}
    return {name: given.get(name) if name in properties else value for name in declared}


def place_of(path: Iterable[str | int]) -> str:
    """Where something is, as a JSON Pointer (RFC 6901)."""
    parts = [str(part).replace("~", "~0").replace("/", "~1") for part in path]
    return "".join(f"/{part}" for part in parts) or "the whole"


def _properties(schema: Mapping[str, JSON]) -> Mapping[str, JSON]:
    properties = schema.get("properties")
    return properties if isinstance(properties, dict) and schema.get("type") != "array" else {}


def _dialect(schema: dict[str, JSON]) -> type[Validator] | None:
    """The draft of a schema; None for one that is not known."""
    if "$schema" not in schema:
        return Draft202012Validator
    return _DRAFTS.get(str(schema["$schema"]).removesuffix("#"))


def _against_draft(dialect: type[Validator], schema: dict[str, JSON]) -> Iterator[str]:
    for error in dialect(dialect.META_SCHEMA, registry=Registry()).iter_errors(schema):
        yield f"{place_of(error.absolute_path)}: {error.message[:300]}"


def _root(schema: dict[str, JSON]) -> Iterator[str]:
    if schema.get("type") not in ("object", "array"):
        yield "the type of the whole answer must be object or array"


def _references(root: dict[str, JSON]) -> Iterator[str]:
    for schema in _schemas(root):
        for key in _REFERENCES:
            target = schema.get(key, "#")
            if not isinstance(target, str):
                continue  # the draft's own schema says so
            if not target.startswith("#"):
                yield f"{key} {target[:200]!r} leads out of the schema; only references that begin with # are followed"
            elif target.startswith("#/") and not _is_there(root, target[2:].split("/")):
                yield f"{key} {target[:200]!r} leads to nothing in the schema"
        if "$id" in schema and schema is not root:
            yield f"$id {str(schema['$id'])[:200]!r}: only the whole schema may have one"


def _is_there(root: JSON, path: Sequence[str]) -> bool:
    found: JSON = root
    for part in path:
        key = unquote(part).replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict) and key in found:
            found = found[key]
        elif isinstance(found, list) and key.isdecimal() and len(key) < 9 and int(key) < len(found):
            found = found[int(key)]
        else:
            return False
    return True


def _patterns(root: dict[str, JSON]) -> Iterator[str]:
    for schema in _schemas(root):
        named = schema.get("patternProperties")
        for pattern in [schema.get("pattern"), *(named if isinstance(named, dict) else ())]:
            if isinstance(pattern, str) and (problem := _pattern_problem(pattern)):
                yield f"the pattern {pattern[:100]!r} {problem}"


def _pattern_problem(pattern: str) -> str:
    if len(pattern) > MAX_PATTERN_LENGTH:
        return f"is longer than {MAX_PATTERN_LENGTH} characters"
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as exc:
        return f"is no regular expression: {exc}"
    return ""


def _schemas(node: JSON) -> Iterator[dict[str, JSON]]:
    """The schema and every schema inside of it; names of properties and data are no keywords."""
    if isinstance(node, dict):
        yield node
        for key, child in node.items():
            if key in _HOLD_NAMES and isinstance(child, dict):
                for named in child.values():
                    yield from _schemas(named)
            elif key not in _HOLD_DATA:
                yield from _schemas(child)
    elif isinstance(node, list):
        for child in node:
            yield from _schemas(child)


def is_deeper(value: JSON, limit: int) -> bool:
    """Whether lists and mappings are nested in each other more than `limit` times."""
    level = [value]
    for _ in range(limit):
        parents = [item for item in level if isinstance(item, dict | list)]
        level = [child for item in parents for child in (item.values() if isinstance(item, dict) else item)]
        if not level:
            return False
    return True
