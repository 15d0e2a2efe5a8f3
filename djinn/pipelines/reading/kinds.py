"""What only one kind of step has: `approve`, `uses` and `with`, `outputSchema`."""

from __future__ import annotations

from djinn.documents.nodes import Items, Node, Scalar, Table
from djinn.pipelines import readers as read
from djinn.pipelines.fields import Fields
from djinn.pipelines.readers import Wrong
from djinn.pipelines.schema import JSON, Approve, OutputSchema, StepKind

MAX_APPROVALS = 20
MAX_EXPIRY_SECONDS = 365 * 86400

_BY = read.list_of(read.person)
_COUNT = read.integer(1, MAX_APPROVALS)
_EXPIRY = read.duration(1, MAX_EXPIRY_SECONDS)
_SHOW = read.list_of(read.name)

APPROVE_KEYS: read.Keys = {
    "by": _BY.schema,
    "count": _COUNT.schema,
    "expires": _EXPIRY.schema,
    "show": _SHOW.schema,
}
OUTPUT_SCHEMA_KEYS: read.Keys = {
    "name": read.identifier.schema,
    "strict": read.boolean.schema,
    "schema": {"type": "object"},
}
KIND_KEYS: read.Keys = {
    "agent": read.identifier.schema,
    "run": read.text.schema,
    "uses": read.identifier.schema,
    "approve": read.either({"const": True}, _BY.schema, read.mapping(APPROVE_KEYS)),
    "with": {"type": "object", "propertyNames": dict(read.name.schema)},
    "outputSchema": {"type": "object"},
}
KINDS: tuple[StepKind, ...] = ("agent", "run", "approve", "uses")


def read_kind(fields: Fields) -> StepKind:
    """The kind of the step, by the one of four keys that it has."""
    found = [kind for kind in KINDS if fields.has(kind)]
    if not found:
        fields.error("a step needs one of 'agent', 'run', 'approve' and 'uses'", "agent")
    elif len(found) > 1:
        fields.error(f"a step has either {found[0]!r} or {found[1]!r}, not both", found[1])
    return found[0] if found else "agent"


def read_approve(fields: Fields) -> Approve | None:
    """`approve: true`, `approve: admin`, `approve: [ada, grace]` or a mapping."""
    if not fields.has("approve"):
        return None
    if not fields.is_table("approve"):
        return Approve(by=fields.read("approve", _deciders, Approve().by))
    inner = fields.table("approve", APPROVE_KEYS)
    assert inner is not None
    usual = Approve()
    return Approve(
        by=inner.read("by", _BY, usual.by) or usual.by,
        count=inner.read("count", _COUNT, usual.count),
        expires_seconds=inner.read("expires", _EXPIRY.or_none, None),
        show=inner.read("show", _SHOW, usual.show),
    )


def read_given(fields: Fields) -> dict[str, JSON]:
    """The inputs of a used pipeline."""
    given: dict[str, JSON] = {}
    table = fields.read("with", read.table, None)
    for name, node in () if table is None else table.entries.items():
        key, line = f"with.{name[:64]}", table.key_lines[name] if table else 0
        if fields.value(Scalar(line, name, name), read.name, "", key):
            given[name] = read.data(node)
    return given


def read_output_schema(fields: Fields, step_id: str) -> OutputSchema | None:
    """`{name, strict, schema}`, or a JSON Schema at once."""
    table = fields.read("outputSchema", read.table, None)
    if table is None:
        return None
    name = step_id or "answer"
    if not isinstance(table.entries.get("schema"), Table):
        return OutputSchema(name, _mapping_of(table))
    inner = fields.inside("outputSchema", table, OUTPUT_SCHEMA_KEYS)
    return OutputSchema(
        name=inner.read("name", read.identifier, name),
        schema=inner.read("schema", _mapping_of, {}),
        strict=inner.read("strict", read.boolean, True),
    )


def _mapping_of(node: Node) -> dict[str, JSON]:
    found = read.data(node)
    if isinstance(found, dict):
        return found
    raise Wrong(f"must be a mapping, not {read.what(node)}")


def _deciders(node: Node) -> tuple[str, ...]:
    if isinstance(node, Scalar) and node.value is True:
        return Approve().by
    if isinstance(node, Scalar) and node.value is False:
        raise Wrong("must be true, who may decide, or a mapping; leave the step out when nobody has to")
    if isinstance(node, Items) and not node.items:
        raise Wrong("must name somebody who may decide")
    return _BY(node)
