"""The keys that `defaults` and steps share."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

from djinn.documents.tools import our_tools, unknown_tool
from djinn.pipelines import readers as read
from djinn.pipelines.fields import Fields
from djinn.pipelines.schema import Network, Resources, Retries, Step

MAX_TIMEOUT_SECONDS = 7 * 86400
MAX_RETRIES = 20
MAX_VISITS = 1000
MAX_BACKOFF_SECONDS = 600

_TIMEOUT = read.duration(1, MAX_TIMEOUT_SECONDS)
_TRIES = read.integer(0, MAX_RETRIES)
_BACKOFF = read.seconds(0, MAX_BACKOFF_SECONDS)
_REASONS = read.list_of(read.retryable)
_VISITS = read.integer(1, MAX_VISITS)
_TURNS = read.integer(1, 10_000)
_TOKENS = read.integer(1, 10_000_000)
_TEMPERATURE = read.number(0, 2)
_NETWORK = read.one_of("none", "bridge")
_CPUS = read.number(0.05, 256)
_MEMORY = read.size_mb(16, 1024 * 1024)
_PIDS = read.integer(8, 100_000)
_DISK = read.size_mb(1, 16 * 1024 * 1024)
_ARTIFACTS = read.list_of(read.glob)
_TOOLS = read.list_of(read.text)

RESOURCES_KEYS: read.Keys = {
    "cpus": _CPUS.schema,
    "memory": _MEMORY.schema,
    "pids": _PIDS.schema,
    "disk": _DISK.schema,
}
RETRIES_KEYS: read.Keys = {"max": _TRIES.schema, "backoff": _BACKOFF.schema, "on": _REASONS.schema}
CONTAINER_KEYS: read.Keys = {
    "image": read.text.schema,
    "network": _NETWORK.schema,
    "resources": read.mapping(RESOURCES_KEYS),
    "artifacts": _ARTIFACTS.schema,
}
MODEL_KEYS: read.Keys = {
    "model": read.text.schema,
    "maxTurns": _TURNS.schema,
    "maxOutputTokens": _TOKENS.schema,
    "temperature": _TEMPERATURE.schema,
}
COMMON_KEYS: read.Keys = {
    "timeout": _TIMEOUT.schema,
    "retries": read.either(_TRIES.schema, read.mapping(RETRIES_KEYS)),
    "maxVisits": _VISITS.schema,
    **MODEL_KEYS,
    **CONTAINER_KEYS,
}
DEFAULTS_KEYS: read.Keys = {**COMMON_KEYS, "tools": _TOOLS.schema}
IDLE_DEFAULTS = frozenset({"outputMethod"})


@dataclass(frozen=True)
class Defaults:
    """What holds unless a step or an agent says otherwise: `step` for steps, `tools` for agents."""

    step: Step
    tools: tuple[str, ...] | None = None


def read_defaults(document: Fields) -> Defaults:
    """What the file says for all its steps and agents."""
    outer = _with_container(document, Step(id="", kind="agent"))
    fields = document.table("defaults", DEFAULTS_KEYS, idle=IDLE_DEFAULTS)
    return Defaults(outer) if fields is None else Defaults(with_common(fields, outer), read_tools(fields))


def read_tools(fields: Fields) -> tuple[str, ...] | None:
    """The tools under the key `tools`, by our names; None when it says nothing. A tool that we do not have is a
    warning."""
    names = fields.read("tools", _TOOLS.or_none, None)
    if names is None:
        return None
    ours, unknown = our_tools(names)
    for name in unknown:
        fields.warn(unknown_tool(name), "tools")
    return ours


def with_common(fields: Fields, base: Step) -> Step:
    """The base with what the keys say that `defaults` and steps share."""
    return replace(
        _with_container(fields, base),
        timeout_seconds=fields.read("timeout", _TIMEOUT, base.timeout_seconds),
        retries=_retries(fields, base.retries),
        max_visits=fields.read("maxVisits", _VISITS, base.max_visits),
        model=fields.read("model", read.text, base.model),
        max_turns=fields.read("maxTurns", _TURNS, base.max_turns),
        max_output_tokens=fields.read("maxOutputTokens", _TOKENS.or_none, base.max_output_tokens),
        temperature=fields.read("temperature", _TEMPERATURE.or_none, base.temperature),
    )


def _with_container(fields: Fields, base: Step) -> Step:
    return replace(
        base,
        image=fields.read("image", read.text, base.image),
        network=cast("Network", fields.read("network", _NETWORK, str(base.network))),
        resources=_resources(fields, base.resources),
        artifacts=fields.read("artifacts", _ARTIFACTS, base.artifacts),
    )


def _resources(fields: Fields, base: Resources) -> Resources:
    inner = fields.table("resources", RESOURCES_KEYS)
    if inner is None:
        return base
    return Resources(
        cpus=inner.read("cpus", _CPUS, base.cpus),
        memory_mb=inner.read("memory", _MEMORY, base.memory_mb),
        pids=inner.read("pids", _PIDS, base.pids),
        disk_mb=inner.read("disk", _DISK.or_none, base.disk_mb),
    )


def _retries(fields: Fields, base: Retries) -> Retries:
    """`retries: 2` or `retries: {max: 2, backoff: 5s, on: [timeout]}`."""
    if not fields.is_table("retries"):
        return replace(base, max=fields.read("retries", _TRIES, base.max))
    inner = fields.table("retries", RETRIES_KEYS)
    if inner is None:
        return base
    return Retries(
        max=inner.read("max", _TRIES, base.max),
        backoff_seconds=inner.read("backoff", _BACKOFF, base.backoff_seconds),
        on=inner.read("on", _REASONS, base.on),
    )
