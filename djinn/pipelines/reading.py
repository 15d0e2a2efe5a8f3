"""From the nodes of a file to the parts of a `Pipeline`; what is wrong is reported and replaced by a default."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

from djinn.pipelines import fields as read
from djinn.pipelines.document import Node, Scalar, Table
from djinn.pipelines.fields import Fields, Wrong
from djinn.pipelines.flow import folded
from djinn.pipelines.report import Report
from djinn.pipelines.schema import (
    AgentReference,
    Network,
    Resources,
    Retries,
    Route,
    Step,
    StepKind,
    WorkspaceSource,
)

PLACE_KEYS = ("image", "network", "resources")
MODEL_KEYS = ("model", "maxTurns", "maxOutputTokens", "temperature")
DEFAULT_KEYS = ("timeout", "retries", "maxVisits", *MODEL_KEYS, *PLACE_KEYS)
STEP_KEYS = (
    *("id", "agent", "run", "description", "input", "outputs", "onComplete", "onResult", "dependsOn"),
    *DEFAULT_KEYS,
)
PIPELINE_KEYS = (
    *("id", "name", "version", "description", "inputs", "workspace", "defaults", "agents", "steps"),
    *PLACE_KEYS,
)

NO_STEPS = "a pipeline needs a list of steps with at least one step in it"
MAX_TIMEOUT_SECONDS = 7 * 86400
MAX_RETRIES = 20
MAX_VISITS = 1000
MAX_BACKOFF_SECONDS = 600


@dataclass(frozen=True)
class StepSource:
    """A step, the node that it was read from, and the ids that it waits for."""

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


def read_defaults(document: Fields) -> Step:
    """A step that holds what every step has unless it says otherwise."""
    outer = _with_place(document, Step(id="", kind="agent"))
    fields = document.table("defaults", DEFAULT_KEYS)
    return outer if fields is None else _with_common(fields, outer)


def read_workspace(document: Fields) -> WorkspaceSource:
    """Where the workspace comes from."""
    fields = document.table("workspace", ("repository", "ref"))
    if fields is None:
        return WorkspaceSource()
    source = WorkspaceSource(fields.read("repository", read.text, ""), fields.read("ref", read.text, ""))
    if source.ref and not fields.has("repository"):
        fields.error("a ref needs a repository", "ref")
    return source


def read_agents(document: Fields) -> dict[str, AgentReference]:
    """The agents that the file declares, by id."""
    found: dict[str, AgentReference] = {}
    nodes: Sequence[Node] = document.read("agents", read.entries, [])
    for node in nodes:
        if not isinstance(node, Table):
            document.error(f"an agent must be a mapping, not {read.what(node)}", "agents", line=node.line)
            continue
        fields = document.inside("agents", node, ("id", "name", "persona", "model", "tools"))
        agent = _read_agent(fields)
        if agent.id in found:
            fields.error(f"there is already an agent {agent.id!r}", "id")
        elif agent.id:
            found[agent.id] = agent
    return found


def _read_agent(fields: Fields) -> AgentReference:
    if not fields.has("id"):
        fields.error("an agent needs an id", "id")
    return AgentReference(
        id=fields.read("id", read.identifier, ""),
        name=fields.read("name", read.text, ""),
        persona=fields.read("persona", read.text, ""),
        model=fields.read("model", read.text, ""),
        tools=fields.read("tools", read.list_of(read.text), ()),
    )


def _step_nodes(node: Node) -> list[Node]:
    found = read.entries(node)
    if not found:
        raise Wrong(NO_STEPS)
    return found


def _read_step(node: Table, report: Report, defaults: Step) -> StepSource:
    known = node.entries.get("id")
    fields = Fields(node, report, STEP_KEYS, step=known.text[:64] if isinstance(known, Scalar) else "")
    if not fields.has("id"):
        fields.error("a step needs an id", "id")
    step = replace(
        _with_common(fields, defaults),
        id=fields.read("id", read.identifier, ""),
        kind=_kind(fields),
        agent=fields.read("agent", read.identifier, ""),
        run=fields.read("run", read.text, ""),
        input=fields.read("input", read.text, ""),
        description=fields.read("description", read.text, ""),
        outputs=fields.read("outputs", read.list_of(read.name), ()),
        on_complete=fields.read("onComplete", _optional(read.text), None),
        on_result=_routes(fields),
    )
    return StepSource(step, node, fields.read("dependsOn", read.list_of(read.text), ()))


def _kind(fields: Fields) -> StepKind:
    if fields.has("agent") and fields.has("run"):
        fields.error("a step has either 'agent' or 'run', not both", "run")
    elif fields.has("run"):
        for key in ("input", *MODEL_KEYS):
            if fields.has(key):
                fields.error(f"a step with 'run' takes no {key!r}; only a step with 'agent' does", key)
    elif not fields.has("agent") and not {"approve", "uses"} & fields.node.entries.keys():
        fields.error("a step needs 'agent' or 'run'", "agent")
    return "run" if fields.has("run") else "agent"


def _with_common(fields: Fields, base: Step) -> Step:
    """The base with what the keys say that `defaults` and steps share."""
    return replace(
        _with_place(fields, base),
        timeout_seconds=fields.read("timeout", read.duration(1, MAX_TIMEOUT_SECONDS), base.timeout_seconds),
        retries=_retries(fields, base.retries),
        max_visits=fields.read("maxVisits", read.integer(1, MAX_VISITS), base.max_visits),
        model=fields.read("model", read.text, base.model),
        max_turns=fields.read("maxTurns", read.integer(1, 10_000), base.max_turns),
        max_output_tokens=fields.read(
            "maxOutputTokens", _optional(read.integer(1, 10_000_000)), base.max_output_tokens
        ),
        temperature=fields.read("temperature", _optional(read.number(0, 2)), base.temperature),
    )


def _with_place(fields: Fields, base: Step) -> Step:
    return replace(
        base,
        image=fields.read("image", read.text, base.image),
        network=cast("Network", fields.read("network", read.one_of("none", "bridge"), str(base.network))),
        resources=_resources(fields, base.resources),
    )


def _resources(fields: Fields, base: Resources) -> Resources:
    inner = fields.table("resources", ("cpus", "memory", "pids"))
    if inner is None:
        return base
    return Resources(
        cpus=inner.read("cpus", read.number(0.05, 256), base.cpus),
        memory_mb=inner.read("memory", read.size_mb(16, 1024 * 1024), base.memory_mb),
        pids=inner.read("pids", read.integer(8, 100_000), base.pids),
    )


def _retries(fields: Fields, base: Retries) -> Retries:
    """`retries: 2` or `retries: {max: 2, backoff: 5s, on: [timeout]}`."""
    if not fields.is_table("retries"):
        return replace(base, max=fields.read("retries", read.integer(0, MAX_RETRIES), base.max))
    inner = fields.table("retries", ("max", "backoff", "on"))
    if inner is None:
        return base
    return Retries(
        max=inner.read("max", read.integer(0, MAX_RETRIES), base.max),
        backoff_seconds=inner.read("backoff", read.seconds(0, MAX_BACKOFF_SECONDS), base.backoff_seconds),
        on=inner.read("on", read.list_of(_retryable), base.on),
    )


def _retryable(node: Node) -> str:
    reason = read.text(node)
    if reason in read.RETRYABLE_REASONS:
        return reason
    raise Wrong(f"{reason[:64]!r} is not a reason that can be tried again: {', '.join(sorted(read.RETRYABLE_REASONS))}")


def _routes(fields: Fields) -> dict[str, Route]:
    routes: dict[str, Route] = {}
    seen: dict[str, str] = {}
    inside = fields.read("onResult", read.table, None)
    for key, node in () if inside is None else inside.entries.items():
        path, line = f"onResult.{key[:64]}", inside.key_lines[key] if inside else 0
        same = seen.setdefault(folded(key), key)
        if not key.strip():
            fields.error("a result is empty", path, line=line)
        if same != key:
            fields.error(f"means the same as {same[:64]!r}; results are compared in any case", path, line=line)
        route = _route(fields, node, path, line)
        if route is not None:
            routes[key] = route
    return routes


def _route(fields: Fields, node: Node, path: str, line: int) -> Route | None:
    table = fields.value(node, read.table, None, path, line=line)
    if table is None:
        return None
    action = fields.inside(path, table, ("goto",))
    if action.has("goto"):
        return Route(action.read("goto", read.text, ""))
    if not table.entries.keys() & read.LATER:
        fields.error("needs a 'goto'", path, line=line)
    return None


def _optional(reader: read.Reader[read.T]) -> read.Reader[read.T | None]:
    return reader
