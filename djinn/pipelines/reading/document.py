"""What a file says beside its steps: workspace, agents, concurrency, budget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from djinn.documents.nodes import Node, Table
from djinn.pipelines import readers as read
from djinn.pipelines.fields import Fields
from djinn.pipelines.inputs import INPUTS_SCHEMA
from djinn.pipelines.reading.common import CONTAINER_KEYS, DEFAULTS_KEYS, IDLE_DEFAULTS, read_tools
from djinn.pipelines.reading.steps import STEP_SCHEMA
from djinn.pipelines.schema import AgentReference, Budget, Concurrency, OverlapPolicy, WorkspaceSource

_PRIORITY = read.integer(-100, 100)
_LIMIT = read.integer(1, 1000)
_POLICY = read.one_of("queue", "reject", "cancel-running")
_USD = read.number(0, 1_000_000)
_TOKENS = read.integer(1, 10**12)
_MINUTES = read.number(0, 1_000_000)
_TOOLS = read.list_of(read.text)

WORKSPACE_KEYS: read.Keys = {"repository": read.text.schema, "ref": read.text.schema}
AGENT_KEYS: read.Keys = {
    "id": read.identifier.schema,
    "name": read.text.schema,
    "persona": read.text.schema,
    "model": read.text.schema,
    "tools": _TOOLS.schema,
}
CONCURRENCY_KEYS: read.Keys = {"group": read.text.schema, "limit": _LIMIT.schema, "policy": _POLICY.schema}
BUDGET_KEYS: read.Keys = {"usd": _USD.schema, "tokens": _TOKENS.schema, "minutes": _MINUTES.schema}
_DECORATION = ("title", "icon", "emoji", "color", "tags", "labels", "metadata")
IDLE_AGENT = frozenset(["role", "avatar", "description", *_DECORATION])
IDLE_PIPELINE = frozenset(
    [
        *("outputMethod", "type", "category", "author", "authors", "license", "homepage"),
        *("createdAt", "updatedAt", "$schema", "schemaVersion"),
        *_DECORATION,
    ]
)
PIPELINE_KEYS: read.Keys = {
    "id": read.identifier.schema,
    "name": read.text.schema,
    "version": read.text.schema,
    "description": read.text.schema,
    "inputs": INPUTS_SCHEMA,
    "workspace": read.mapping(WORKSPACE_KEYS),
    "defaults": read.mapping(DEFAULTS_KEYS, idle=IDLE_DEFAULTS),
    "agents": {
        "type": "array",
        "maxItems": read.MAX_ITEMS,
        "items": dict(read.mapping(AGENT_KEYS, required=("id",), idle=IDLE_AGENT)),
    },
    "steps": {"type": "array", "minItems": 1, "maxItems": read.MAX_ITEMS, "items": dict(STEP_SCHEMA)},
    "concurrency": read.either(read.text.schema, read.mapping(CONCURRENCY_KEYS, required=("group",))),
    "priority": _PRIORITY.schema,
    "budget": read.mapping(BUDGET_KEYS),
    **CONTAINER_KEYS,
}


def read_workspace(document: Fields) -> WorkspaceSource:
    """Where the workspace comes from."""
    fields = document.table("workspace", WORKSPACE_KEYS)
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
        fields = document.inside("agents", node, AGENT_KEYS, idle=IDLE_AGENT)
        agent = _read_agent(fields)
        if agent.id in found:
            fields.error(f"there is already an agent {agent.id!r}", "id")
        elif agent.id:
            found[agent.id] = agent
    return found


def read_concurrency(document: Fields) -> Concurrency | None:
    """`concurrency: deploy` or `concurrency: {group, limit, policy}`."""
    if not document.has("concurrency"):
        return None
    if not document.is_table("concurrency"):
        return Concurrency(document.read("concurrency", read.text, ""))
    fields = document.table("concurrency", CONCURRENCY_KEYS)
    assert fields is not None
    if not fields.has("group"):
        fields.error("'concurrency' needs the name of a group", "group")
    return Concurrency(
        group=fields.read("group", read.text, ""),
        limit=fields.read("limit", _LIMIT, 1),
        policy=cast("OverlapPolicy", fields.read("policy", _POLICY, "queue")),
    )


def read_budget(document: Fields) -> Budget | None:
    """What a run may use at most."""
    fields = document.table("budget", BUDGET_KEYS)
    if fields is None:
        return None
    if not any(fields.has(key) for key in BUDGET_KEYS):
        document.error("needs one of 'usd', 'tokens' and 'minutes'", "budget")
    return Budget(
        usd=fields.read("usd", _USD.or_none, None),
        tokens=fields.read("tokens", _TOKENS.or_none, None),
        minutes=fields.read("minutes", _MINUTES.or_none, None),
    )


def read_priority(document: Fields) -> int:
    """How urgent runs of the pipeline are, from -100 to 100."""
    return document.read("priority", _PRIORITY, 0)


def _read_agent(fields: Fields) -> AgentReference:
    if not fields.has("id"):
        fields.error("an agent needs an id", "id")
    return AgentReference(
        id=fields.read("id", read.identifier, ""),
        name=fields.read("name", read.text, ""),
        persona=fields.read("persona", read.text, ""),
        model=fields.read("model", read.text, ""),
        tools=read_tools(fields),
    )
