"""The steps of a file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from djinn.pipelines import readers as read
from djinn.pipelines.document import Node, Scalar, Table
from djinn.pipelines.fields import Fields
from djinn.pipelines.readers import Wrong
from djinn.pipelines.reading.common import COMMON_KEYS, CONTAINER_KEYS, MODEL_KEYS, read_defaults, with_common
from djinn.pipelines.reading.graph import GRAPH_KEYS, read_graph
from djinn.pipelines.reading.kinds import KIND_KEYS, read_approve, read_given, read_kind, read_output_schema
from djinn.pipelines.reading.routes import ROUTE_KEYS, read_loop, read_otherwise, read_routes
from djinn.pipelines.report import Report
from djinn.pipelines.schema import JSON, OutputSchema, Step, StepKind

_OUTPUTS = read.list_of(read.name)
_STEP_IDS = read.list_of(read.text)

STEP_KEYS: read.Keys = {
    "id": read.identifier.schema,
    "description": read.text.schema,
    "input": read.text.schema,
    "outputs": _OUTPUTS.schema,
    "dependsOn": _STEP_IDS.schema,
    **KIND_KEYS,
    **ROUTE_KEYS,
    **GRAPH_KEYS,
    **COMMON_KEYS,
}
IDLE_STEP = frozenset(
    [
        *("outputMethod", "type", "name", "title", "icon", "emoji", "color"),
        *("tags", "labels", "category", "author", "metadata"),
    ]
)
NO_STEPS = "a pipeline needs a list of steps with at least one step in it"
DECISION, COMMENT = "DECISION", "COMMENT"

_AGENT_ONLY = (*MODEL_KEYS, "outputSchema")
_NOT_TAKEN: dict[StepKind, tuple[str, ...]] = {
    "agent": ("with",),
    "run": ("with", "input", *_AGENT_ONLY),
    "approve": ("with", "foreach", "matrix", "loop", "retries", "timeout", *_AGENT_ONLY, *CONTAINER_KEYS),
    "uses": ("input", "retries", "timeout", *_AGENT_ONLY, *CONTAINER_KEYS),
}


def _step_schema() -> read.Schema:
    """A step has exactly one of four keys, and which other keys it has depends on that one."""
    kinds: dict[StepKind, dict[str, JSON]] = {
        kind: {"required": [kind], "properties": {kind: {"not": {"type": "null"}}}} for kind in _NOT_TAKEN
    }
    limits: list[JSON] = [
        {"if": kinds[kind], "then": {"properties": {key: {"type": "null"} for key in keys}}}
        for kind, keys in _NOT_TAKEN.items()
    ]
    return {**read.mapping(STEP_KEYS, required=("id",), idle=IDLE_STEP), "oneOf": [*kinds.values()], "allOf": limits}


STEP_SCHEMA = _step_schema()


@dataclass(frozen=True)
class StepSource:
    """A step, the node that it was read from, and the ids that it waits for by `dependsOn`."""

    step: Step
    node: Table
    depends_on: tuple[str, ...]


def read_steps(document: Fields) -> list[StepSource]:
    """The steps in the order of the file; an entry that is no mapping is reported and left out."""
    defaults = read_defaults(document)
    nodes: Sequence[Node] = document.read("steps", _step_nodes, [])
    if not document.has("steps"):
        document.error(NO_STEPS, "steps")
    sources = []
    for node in nodes:
        if isinstance(node, Table):
            sources.append(_read_step(node, document.report, defaults))
        else:
            document.error(f"a step must be a mapping, not {read.what(node)}", "steps", line=node.line)
    return sources


def _step_nodes(node: Node) -> list[Node]:
    found = read.entries(node)
    if not found:
        raise Wrong(NO_STEPS)
    return found


def _read_step(node: Table, report: Report, defaults: Step) -> StepSource:
    known = node.entries.get("id")
    shown = known.text[:64] if isinstance(known, Scalar) else ""
    fields = Fields(node, report, STEP_KEYS, step=shown, idle=IDLE_STEP)
    if not fields.has("id"):
        fields.error("a step needs an id", "id")
    kind = read_kind(fields)
    _refuse_keys_of_other_kinds(fields, kind)
    step = _with_graph(fields, _with_own(fields, with_common(fields, defaults), kind))
    return StepSource(step, node, fields.read("dependsOn", _STEP_IDS, ()))


def _with_own(fields: Fields, base: Step, kind: StepKind) -> Step:
    step_id = fields.read("id", read.identifier, "")
    output_schema = read_output_schema(fields, step_id)
    return replace(
        base,
        id=step_id,
        kind=kind,
        agent=fields.read("agent", read.identifier, ""),
        run=fields.read("run", read.text, ""),
        uses=fields.read("uses", read.identifier, ""),
        given=read_given(fields),
        approve=read_approve(fields),
        output_schema=output_schema,
        input=fields.read("input", read.text, ""),
        description=fields.read("description", read.text, ""),
        outputs=fields.read("outputs", _OUTPUTS, ()) or _usual_outputs(kind, output_schema),
        artifacts=base.artifacts if kind in ("agent", "run") else (),
        on_complete=fields.read("onComplete", read.text.or_none, None),
        on_result=read_routes(fields),
        otherwise=read_otherwise(fields),
        loop=read_loop(fields),
    )


def _with_graph(fields: Fields, base: Step) -> Step:
    part = read_graph(fields)
    return replace(
        base,
        needs=part.needs,
        when=part.when,
        over=part.over,
        matrix=part.matrix,
        parallel=part.parallel,
        continue_on_error=part.continue_on_error,
    )


def _usual_outputs(kind: StepKind, schema: OutputSchema | None) -> tuple[str, ...]:
    """The outputs of a step that declares none: an approval's decision, the properties of an answer's schema."""
    if kind == "approve":
        return (DECISION,)
    properties = schema.schema.get("properties") if schema else None
    return tuple(name for name in properties if read.is_name(name)) if isinstance(properties, dict) else ()


def _refuse_keys_of_other_kinds(fields: Fields, kind: StepKind) -> None:
    for key in _NOT_TAKEN[kind]:
        if fields.has(key):
            fields.error(f"a step with {kind!r} takes no {key!r}", key)
