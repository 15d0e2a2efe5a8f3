"""The journal and brief protocol: the one module that Djinn and the runtime in the container share.

An execution's directory is its host's and cannot be written from inside, but for two names in it. Djinn writes
`brief.json` and makes an empty `journal.ndjson` and the directory `scratch` before the start. The runtime makes
`scratch/started` (a directory: `mkdir` is atomic) before anything else, so that a second start of the same container
does nothing; whatever else the work needs beside its workspace is in `scratch` too. The runtime appends to
`journal.ndjson`, one JSON object a line, numbered from 1 without gaps:

    {"n": 1, "t": 1732252800123, "type": "ready", "data": {}}

`t` is milliseconds since the epoch by the container's clock and is shown, never trusted. The record `finished` is the
last one and decides how the execution ended. Standard library only, Python 3.9+.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Dict, List, Optional, Tuple

VERSION = 1

BRIEF_NAME = "brief.json"
JOURNAL_NAME = "journal.ndjson"
SCRATCH_NAME = "scratch"
GUARD_NAME = "started"

CONTAINER_WORKSPACE = "/workspace"
CONTAINER_EXECUTION = "/run/djinn/execution"
CONTAINER_GATEWAY = "/run/djinn/gateway"
CONTAINER_RUNTIME = "/opt/djinn"
GATEWAY_SOCKET = "gateway.sock"

ANSWER = "answer"  # the one output of an agent with an output schema

MAX_RECORD_BYTES = 64 * 1024
MAX_JOURNAL_BYTES = 64 * 1024 * 1024

# The exit code of the runtime. Whoever reads `finished` compares: it stands there exactly when the code is one of the
# first two, of this or of an earlier start.
EXIT_FINISHED = 0
EXIT_NOT_SYNCED = 96  # `finished` is written, but the disk may not have it yet
EXIT_ALREADY_STARTED = 97
EXIT_JOURNAL_BROKEN = 98

RECORD_TYPES = frozenset(
    [
        "ready",
        "text",
        "thinking",
        "message",
        "tool_call",
        "tool_result",
        "output",
        "file_changed",
        "usage",
        "log",
        "finished",
    ]
)

# Reasons that the runtime itself may state in `finished`; anything else it says is recorded as "error".
FAILURE_REASONS = frozenset(
    [
        *("error", "timeout", "out_of_memory", "output_limit", "disk", "turns", "model"),
        *("rejected", "cancelled", "budget", "invalid_output", "unmatched"),
    ]
)


class ProtocolError(ValueError):
    """A brief or a journal line that does not follow the protocol."""


@dataclass(frozen=True)
class Record:
    """One line of the journal."""

    n: int
    t: int
    type: str
    data: Dict[str, Any]


@dataclass(frozen=True)
class AgentBrief:
    """What the built-in loop needs: the persona's text, the task and its limits.

    With `output_schema` ({"name", "strict", "schema"}) there is no loop: the model is asked without tools, and the
    value that follows the JSON Schema is the output `ANSWER`. With `results` one output has to be one of them.
    """

    name: str
    model: str
    system: str
    prompt: str
    tools: List[str]
    outputs: List[str] = field(default_factory=list)
    max_turns: int = 60
    max_output_tokens: Optional[int] = None
    temperature: Optional[float] = None
    output_schema: Optional[Dict[str, Any]] = None
    results: List[str] = field(default_factory=list)


@dataclass(frozen=True)
class Brief:
    """An execution's orders. `mode` is "agent" (`agent` is set) or "command" (`script` is set).

    `workspace` and `gateway_socket` are paths as the runtime sees them. `token` opens the gateway and dies with the
    execution. Times are seconds, sizes bytes.
    """

    execution: str
    mode: str
    token: str
    workspace: str
    gateway_socket: str
    deadline_seconds: int
    agent: Optional[AgentBrief] = None
    script: Optional[str] = None
    outputs: List[str] = field(default_factory=list)
    environment: Dict[str, str] = field(default_factory=dict)
    command_timeout_seconds: int = 120
    tool_output_bytes: int = 32 * 1024
    journal_bytes: int = MAX_JOURNAL_BYTES
    version: int = VERSION


def dump_brief(brief: Brief) -> bytes:
    """The brief as it is written to `brief.json`."""
    return json.dumps(asdict(brief), ensure_ascii=False, indent=1).encode()


def load_brief(text: bytes) -> Brief:
    """The brief read back; raises `ProtocolError` when it is not one of this version."""
    try:
        values = json.loads(text)
        agent = values.pop("agent")
        brief = Brief(agent=AgentBrief(**agent) if agent else None, **values)
    except (ValueError, TypeError, KeyError, AttributeError) as exc:
        raise ProtocolError(f"not a brief: {exc}") from exc
    if brief.version != VERSION:
        raise ProtocolError(f"brief of version {brief.version}, this runtime speaks {VERSION}")
    return brief


def encode_record(record: Record) -> bytes:
    """The record as one journal line; a data value that makes it too long is cut, and says so in `cut`."""
    line = _line(record.n, record.t, record.type, record.data)
    if len(line) <= MAX_RECORD_BYTES:
        return line
    data = dict(record.data)
    names = sorted(data, key=lambda name: -len(json.dumps(data[name], default=str)))
    share = MAX_RECORD_BYTES // 8
    cut: List[str] = []
    for name in names:
        value = data[name]
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        data[name] = text[:share]
        cut.append(name)
        line = _line(record.n, record.t, record.type, {**data, "cut": cut})
        if len(line) <= MAX_RECORD_BYTES:
            return line
    return _line(record.n, record.t, record.type, {"cut": ["*"]})


def decode_record(line: bytes) -> Record:
    """The record in a journal line (without its newline); raises `ProtocolError` when it is not one.

    Checks the size, that it is one JSON object with the four known keys, their types, and the record's type. NUL, which
    PostgreSQL's text and jsonb refuse, and lone surrogates are replaced by U+FFFD anywhere inside.
    """
    if len(line) > MAX_RECORD_BYTES:
        raise ProtocolError(f"a line of {len(line)} bytes, at most {MAX_RECORD_BYTES} are allowed")
    try:
        value = json.loads(line, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as exc:
        raise ProtocolError(f"not JSON: {exc}") from exc
    if not isinstance(value, dict) or set(value) != {"n", "t", "type", "data"}:
        raise ProtocolError("not an object with exactly n, t, type and data")
    n, t, kind, data = value["n"], value["t"], value["type"], value["data"]
    if type(n) is not int or type(t) is not int or n < 1 or not 0 <= t < 2**53:
        raise ProtocolError("n and t must be whole numbers in range")
    if kind not in RECORD_TYPES or not isinstance(data, dict):
        raise ProtocolError(f"unknown record type {str(kind)[:40]!r} or data that is no object")
    try:
        return Record(n=n, t=t, type=kind, data=clean(data))
    except RecursionError as exc:
        raise ProtocolError("nested too deeply") from exc


def clean(value: Any) -> Any:
    """The JSON value with NUL and lone surrogates replaced in every string, keys too."""
    if isinstance(value, str):
        return value.replace("\x00", "\ufffd").encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, dict):
        return {clean(str(key)): clean(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [clean(item) for item in value]
    return value


def folded(value: Any) -> str:
    """The text by which an output and a result are compared: trimmed, any case, JSON for what is not text."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text.strip().casefold()


def split_lines(chunk: bytes) -> Tuple[List[bytes], bytes]:
    """The whole lines of a chunk, without their newlines, and what is left behind the last newline."""
    *lines, rest = chunk.split(b"\n")
    return lines, rest


def _line(n: int, t: int, kind: str, data: Dict[str, Any]) -> bytes:
    text = json.dumps(
        {"n": n, "t": t, "type": kind, "data": data}, ensure_ascii=False, separators=(",", ":"), default=str
    )
    return text.encode("utf-8", "replace") + b"\n"


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")
