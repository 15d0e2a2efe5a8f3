"""A pipeline as the rest of Djinn sees it: frozen dataclasses, and their JSON form that a run keeps."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, cast

from pydantic import BeforeValidator, JsonValue, PlainSerializer, TypeAdapter

JSON = JsonValue
StepKind = Literal["agent", "run", "approve", "uses"]
InputType = Literal["string", "text", "integer", "number", "boolean", "list", "json"]
Network = Literal["none", "bridge"]
Family = Literal["routed", "graph"]
OverlapPolicy = Literal["queue", "reject", "cancel-running"]
DIFF = "diff"
"""What an approval shows beside outputs."""


@dataclass(frozen=True)
class Retries:
    """How often a step is tried again after a failure that is charged to it."""

    max: int = 1
    """Tries after the first one; 0 is never."""
    backoff_seconds: float = 0.0
    """The wait before the first retry; it doubles each time."""
    on: tuple[str, ...] = ()
    """The reasons that are tried again; empty is every retryable one."""


@dataclass(frozen=True)
class Resources:
    """Upper bounds of the step's container."""

    cpus: float = 1.0
    memory_mb: int = 1024
    pids: int = 256
    disk_mb: int | None = None
    """What its workspace and directory may take together; None is the installation's limit."""


@dataclass(frozen=True)
class Notify:
    """Something to tell an agent: it stands in the run's log and in the next prompt of that agent."""

    agent: str
    message: str
    """A template."""


@dataclass(frozen=True)
class Route:
    """What follows a result: at most one of `goto`, `retry`, `continue_loop` and `breaks`, or `goto` out of a loop
    together with `breaks`; and perhaps a notice. Without any of them the step goes on by its `onComplete`.
    """

    goto: str | None = None
    retry: bool = False
    max_retries: int = 1
    continue_loop: bool = False
    breaks: bool = False
    """Leaves the loop, whose other items are not done: to `goto`, else to what follows the loop."""
    notify: Notify | None = None

    @property
    def leads_on(self) -> bool:
        """Whether it says where the token goes."""
        return self.goto is not None or self.retry or self.continue_loop or self.breaks


@dataclass(frozen=True)
class Loop:
    """A step that runs once for each item of the JSON array that an output or input holds."""

    over: str
    on_each_complete: str | None = None
    """The first step of the chain that follows each item; the chain ends with `continueLoop`."""
    on_all_complete: str | None = None


@dataclass(frozen=True)
class Approve:
    """A person's decision that the run waits for."""

    by: tuple[str, ...] = ("operator",)
    """Who may decide: the roles `operator` and `admin`, or names of people."""
    count: int = 1
    """How many different people must agree; one who rejects is enough."""
    expires_seconds: int | None = None
    show: tuple[str, ...] = (DIFF,)
    """What is shown and decided on: `diff`, and names of outputs."""


def _schema_of(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value


@dataclass(frozen=True)
class OutputSchema:
    """The JSON Schema that the answer of a step must follow."""

    name: str
    schema: Annotated[Mapping[str, JSON], BeforeValidator(_schema_of), PlainSerializer(json.dumps, when_used="json")]
    """Text in a snapshot: models answer in its order of keys, which JSON columns lose."""
    strict: bool = True


@dataclass(frozen=True)
class Step:
    """One step. `input` is the template of an agent's prompt or an approval's question, `run` that of a script."""

    id: str
    kind: StepKind
    agent: str = ""
    description: str = ""
    input: str = ""
    run: str = ""
    outputs: tuple[str, ...] = ()
    on_complete: str | None = None
    on_result: Mapping[str, Route] = field(default_factory=dict)
    otherwise: Route | None = None
    """What follows a result that is no key of `on_result`."""
    retries: Retries = Retries()
    timeout_seconds: int = 3600
    max_visits: int = 10
    model: str = ""
    """Empty is the agent's own model."""
    max_turns: int = 60
    max_output_tokens: int | None = None
    temperature: float | None = None
    image: str = ""
    """Empty is the installation's image."""
    network: Network = "none"
    resources: Resources = Resources()
    output_schema: OutputSchema | None = None
    artifacts: tuple[str, ...] = ()
    """Globs of files in the workspace that are kept when the step has succeeded."""
    loop: Loop | None = None
    approve: Approve | None = None
    uses: str = ""
    """The id of another pipeline that runs as this step."""
    given: Mapping[str, JSON] = field(default_factory=dict)
    """The inputs of the used pipeline; texts are templates."""
    needs: tuple[str, ...] = ()
    when: str = ""
    """An expression; the step is skipped when it is not true."""
    over: str = ""
    """An expression that gives a list; the step runs once for each item."""
    matrix: Mapping[str, tuple[JSON, ...]] = field(default_factory=dict)
    parallel: int = 4
    """How many items run at once."""
    continue_on_error: bool = False

    @property
    def is_routed(self) -> bool:
        """Whether the step says itself what follows it."""
        return self.on_complete is not None or bool(self.on_result) or self.loop is not None

    @property
    def actions(self) -> tuple[tuple[tuple[str, ...], Route], ...]:
        """What follows its results, each with the path of its key in the file."""
        found = [(("onResult", key), route) for key, route in self.on_result.items()]
        return (*found, *([(("else",), self.otherwise)] if self.otherwise is not None else []))

    @property
    def must_match(self) -> bool:
        """Whether its result has to be a key of `on_result`, since nothing says what follows any other.

        A loop follows its own step in any case, and a decision is never a word that nobody has thought of.
        """
        is_closed = self.otherwise is None and self.on_complete is None
        return bool(self.on_result) and is_closed and self.loop is None and self.kind != "approve"

    @property
    def is_graph(self) -> bool:
        """Whether the step uses what only pipelines of the graph family have."""
        return bool(self.needs or self.when or self.has_items or self.continue_on_error)

    @property
    def has_items(self) -> bool:
        """Whether it is a step of a graph that runs once for each of several items."""
        return bool(self.over or self.matrix)

    @property
    def needs_container(self) -> bool:
        return self.kind in ("agent", "run")


@dataclass(frozen=True)
class Input:
    """A value that a run is started with."""

    name: str
    type: InputType = "string"
    default: JSON = None
    required: bool = True
    description: str = ""
    choices: tuple[JSON, ...] = ()


@dataclass(frozen=True)
class WorkspaceSource:
    """What the workspace is cloned from; both are templates, and empty is a fresh workspace."""

    repository: str = ""
    ref: str = ""


@dataclass(frozen=True)
class AgentReference:
    """An agent that the file itself declares."""

    id: str
    name: str = ""
    persona: str = ""
    model: str = ""
    tools: tuple[str, ...] = ()


@dataclass(frozen=True)
class Concurrency:
    """How many runs of one group may be under way, and what becomes of one more."""

    group: str
    """A template over the inputs."""
    limit: int = 1
    policy: OverlapPolicy = "queue"


@dataclass(frozen=True)
class Budget:
    """What a run may use at most; None is no bound."""

    usd: float | None = None
    tokens: int | None = None
    minutes: float | None = None


@dataclass(frozen=True)
class Pipeline:
    """A whole pipeline; `steps` is in the order in which a pipeline without routing runs them."""

    id: str
    name: str
    version: str
    description: str
    inputs: tuple[Input, ...]
    workspace: WorkspaceSource
    steps: tuple[Step, ...]
    agents: Mapping[str, AgentReference] = field(default_factory=dict)
    concurrency: Concurrency | None = None
    priority: int = 0
    """From -100 to 100; what waits gains one a minute."""
    budget: Budget | None = None

    def step(self, step_id: str) -> Step:
        """The step of that id; raises `LookupError` when there is none."""
        for step in self.steps:
            if step.id == step_id:
                return step
        raise LookupError(f"pipeline {self.id!r} has no step {step_id!r}")

    @property
    def first_step(self) -> Step:
        return self.steps[0]

    @property
    def is_routed(self) -> bool:
        """Whether any step says itself what follows it."""
        return any(step.is_routed for step in self.steps)

    @property
    def family(self) -> Family:
        """In a routed pipeline one token walks; in a graph each step starts when what it needs is done."""
        return "graph" if any(step.is_graph for step in self.steps) else "routed"

    def following(self, step_id: str) -> Step | None:
        """The next step in order, None after the last one."""
        ids = [step.id for step in self.steps]
        rest = self.steps[ids.index(step_id) + 1 :]
        return rest[0] if rest else None


_ADAPTER: TypeAdapter[Pipeline] = TypeAdapter(Pipeline)


def to_snapshot(pipeline: Pipeline) -> dict[str, JSON]:
    """The pipeline as JSON-safe data; `from_snapshot` gives an equal pipeline back."""
    return cast("dict[str, JSON]", _ADAPTER.dump_python(pipeline, mode="json"))


def from_snapshot(data: Mapping[str, JSON]) -> Pipeline:
    """The pipeline of a snapshot; raises `ValueError` when the data is not one."""
    return _ADAPTER.validate_python(data)


def digest(pipeline: Pipeline) -> str:
    """The SHA-256 of the canonical snapshot, in hex: equal pipelines have equal digests."""
    text = json.dumps(to_snapshot(pipeline), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
