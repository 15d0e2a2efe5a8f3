"""What follows a step of the routed family: `onResult`, `else` and `loop`."""

from __future__ import annotations

from djinn.pipelines import readers as read
from djinn.pipelines.document import Node
from djinn.pipelines.fields import Fields
from djinn.pipelines.reading.common import MAX_RETRIES
from djinn.pipelines.results import folded
from djinn.pipelines.schema import Loop, Notify, Route

_TRIES = read.integer(0, MAX_RETRIES)

NOTIFY_KEYS: read.Keys = {"agent": read.identifier.schema, "message": read.text.schema}
ACTION_KEYS: read.Keys = {
    "goto": read.text.schema,
    "retry": read.boolean.schema,
    "maxRetries": _TRIES.schema,
    "continueLoop": read.boolean.schema,
    "break": read.boolean.schema,
    "notify": read.mapping(NOTIFY_KEYS, required=("agent", "message")),
}
LOOP_KEYS: read.Keys = {
    "over": read.text.schema,
    "onEachComplete": read.text.schema,
    "onAllComplete": read.text.schema,
}
ROUTE_KEYS: read.Keys = {
    "onComplete": read.text.schema,
    "onResult": {
        "type": "object",
        "additionalProperties": dict(read.either(read.mapping(ACTION_KEYS), {"type": "null"})),
    },
    "else": read.mapping(ACTION_KEYS),
    "loop": read.mapping(LOOP_KEYS, required=("over",)),
}


def read_routes(fields: Fields) -> dict[str, Route]:
    """The action of each result, by the result as it is written."""
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


def read_otherwise(fields: Fields) -> Route | None:
    """The action of every other result."""
    node = fields.read("else", read.table, None)
    if node is None:
        return None
    if not fields.has("onResult"):
        fields.error("goes with 'onResult'; what always follows is 'onComplete'", "else")
    return _route(fields, node, "else", fields.node.key_lines["else"])


def read_loop(fields: Fields) -> Loop | None:
    """The loop of a step that runs once for each item."""
    inner = fields.table("loop", LOOP_KEYS)
    if inner is None:
        return None
    if not inner.has("over"):
        inner.error("a loop needs the name of an output or input that holds a list", "over")
    return Loop(
        over=inner.read("over", read.text, ""),
        on_each_complete=inner.read("onEachComplete", read.text.or_none, None),
        on_all_complete=inner.read("onAllComplete", read.text.or_none, None),
    )


def _route(fields: Fields, node: Node, path: str, line: int) -> Route | None:
    if read.is_null(node):
        message = "there is no action behind it: the run goes on as 'onComplete' says; write {} to mean that"
        fields.report.warn(line, message, step=fields.step, key=path)
        return Route()
    table = fields.value(node, read.table, None, path, line=line)
    if table is None:
        return None
    action = fields.inside(path, table, ACTION_KEYS)
    route = Route(
        goto=action.read("goto", read.text.or_none, None),
        retry=action.read("retry", read.boolean, False),
        max_retries=action.read("maxRetries", _TRIES, 1),
        continue_loop=action.read("continueLoop", read.boolean, False),
        breaks=action.read("break", read.boolean, False),
        notify=_notify(action),
    )
    _check_action(fields, action, route, path, line)
    return route


def _check_action(fields: Fields, action: Fields, route: Route, path: str, line: int) -> None:
    routings = {"goto": route.goto is not None, "retry": route.retry, "continueLoop": route.continue_loop}
    routings["break"] = route.breaks
    chosen = [key for key, is_chosen in routings.items() if is_chosen]
    if len(chosen) > 1 and chosen != ["goto", "break"]:
        action.error(f"{chosen[0]!r} is there too; an action goes one way", chosen[1])
    is_plain = not action.node.entries  # `{}` goes on
    if not chosen and not is_plain and not action.has("notify") and not any(action.has(key) for key in routings):
        fields.error("needs one of 'goto', 'retry', 'continueLoop', 'break' and 'notify'", path, line=line)
    if action.has("maxRetries") and not route.retry:
        action.warn("has no effect without 'retry: true'", "maxRetries")


def _notify(action: Fields) -> Notify | None:
    inner = action.table("notify", NOTIFY_KEYS)
    if inner is None:
        return None
    for key in NOTIFY_KEYS:
        if not inner.has(key):
            inner.error(f"a notice needs {key!r}", key)
    return Notify(inner.read("agent", read.identifier, ""), inner.read("message", read.text, ""))
