"""Values that follow a JSON Schema, as plain as possible."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import unquote

from djinn.pipelines.schema import JSON

Schema = Mapping[str, JSON]
DEEPEST = 12
ITEM = "[]"


def part_of(root: Schema, path: tuple[str, ...]) -> Schema | None:
    """The schema of a part of the answer, None when it says nothing; an output that is no property is the whole."""
    properties = root.get("properties")
    is_whole = not isinstance(properties, dict) or path[0] not in properties
    found: Schema | None = _resolved(root, root)
    for key in path[1:] if is_whole else path:
        if found is None:
            return None
        inner = found.get("items") if key == ITEM else _property(found, key)
        found = _resolved(root, inner) if isinstance(inner, dict) else None
    return found


def sampled(schema: Schema, root: Schema | None = None, depth: int = 0) -> JSON:
    """A plain value that follows the schema, as far as types, choices, and least sizes go."""
    root = schema if root is None else root
    schema = _resolved(root, schema) or {}
    if "const" in schema:
        return schema["const"]
    for key in ("enum", "examples"):
        listed = schema.get(key)
        if isinstance(listed, list) and listed:
            return listed[0]
    if "default" in schema:
        return schema["default"]
    for key in ("anyOf", "oneOf"):
        ways = schema.get(key)
        if isinstance(ways, list) and ways and isinstance(ways[0], dict) and depth < DEEPEST:
            return sampled({**schema, key: [], **ways[0]}, root, depth + 1)
    return _typed(schema, root, depth)


def _typed(schema: Schema, root: Schema, depth: int) -> JSON:
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) and kind else kind
    if kind == "object" or (kind is None and "properties" in schema):
        properties = schema.get("properties")
        entries = properties if isinstance(properties, dict) and depth < DEEPEST else {}
        return {name: sampled(one, root, depth + 1) for name, one in entries.items() if isinstance(one, dict)}
    if kind == "array":
        items, least = schema.get("items"), schema.get("minItems", 0)
        count = max(1, least if isinstance(least, int) else 0) if depth < DEEPEST else 0
        return [sampled(items if isinstance(items, dict) else {}, root, depth + 1) for _ in range(count)]
    if kind in ("integer", "number"):
        least = schema.get("minimum", 1)
        return least if isinstance(least, (int, float)) else 1
    if kind == "string" or kind is None:
        length = schema.get("minLength", 0)
        return "ok".ljust(length, "k") if isinstance(length, int) else "ok"
    return True if kind == "boolean" else None


def _property(schema: Schema, key: str) -> JSON:
    properties = schema.get("properties")
    return properties.get(key) if isinstance(properties, dict) else None


def _resolved(root: Schema, schema: Schema) -> Schema | None:
    """The schema behind `$ref`, which leads to a place in the same one; None when it leads in a circle."""
    for _ in range(DEEPEST):
        reference = schema.get("$ref")
        if not isinstance(reference, str):
            return schema
        found: JSON = dict(root)
        for part in reference.removeprefix("#").strip("/").split("/") if reference not in ("#", "#/") else ():
            key = unquote(part).replace("~1", "/").replace("~0", "~")
            found = found.get(key) if isinstance(found, dict) else None
        if not isinstance(found, dict):
            return None
        schema = found
    return None
