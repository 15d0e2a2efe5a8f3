"""A runner without processes, for tests of the engine and for benchmarks: it writes the journal itself, at once.

A brief whose command script is JSON of this shape is played; any other execution succeeds, each declared output "ok":

    {"stub": {"records": [{"type": "log", "data": {}}], "finished": {...}, "exit_code": 0, "hold": false}}

`"finished": null` ends without that record, as a crash would; `"hold": true` runs on until it is stopped.
"""

from __future__ import annotations

import json
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from djinn.runner import beneath
from djinn.runner.base import ContainerSpec, ContainerState, InsidePaths, Phase, SpecificationRefused
from djinn.runner.files import read_json, remove_tree, write_json
from djinn.runner.processes import Identity
from runtime_image.djinn_runtime.protocol import (
    BRIEF_NAME,
    EXIT_ALREADY_STARTED,
    GUARD_NAME,
    JOURNAL_NAME,
    SCRATCH_NAME,
    Brief,
    ProtocolError,
    Record,
    encode_record,
    load_brief,
)

STOPPED_EXIT_CODE = 143
MOST_BRIEF_BYTES = 64 * 1024**2
_EXECUTION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")


@dataclass(frozen=True)
class Script:
    """What the stub plays instead of an agent."""

    records: tuple[tuple[str, dict[str, Any]], ...]
    exit_code: int
    is_held: bool


class StubRunner:
    """Plays executions in the calling thread. Its state is files under `root`, so every process sees it."""

    name = "stub"
    isolates = False

    def __init__(self, root: Path) -> None:
        self._root = root

    def ping(self) -> str:
        return "stub: plays executions without running anything"

    def paths(self, spec: ContainerSpec) -> InsidePaths:
        return InsidePaths(str(spec.workspace), str(spec.execution_directory), str(spec.gateway_directory))

    def owner(self) -> tuple[int, int] | None:
        return None

    def resolve_image(self, reference: str) -> str:
        return reference

    def start(self, spec: ContainerSpec) -> None:
        state = self._state(spec.execution)
        self._root.mkdir(parents=True, exist_ok=True)
        try:
            state.mkdir()
        except FileExistsError:
            return
        try:
            is_first = beneath.make_directory(spec.execution_directory, f"{SCRATCH_NAME}/{GUARD_NAME}")
        except OSError as exc:
            raise SpecificationRefused(f"no execution directory: {exc}") from exc
        if not is_first:
            write_json(state / "exit.json", EXIT_ALREADY_STARTED)
            return
        script = read_script(spec.execution_directory)
        write_json(state / "running.json", True)
        _play(script, spec.execution_directory)
        if not script.is_held:
            write_json(state / "exit.json", script.exit_code)

    def inspect(self, execution: str) -> ContainerState:
        state = self._state(execution)
        exit_code = read_json(state / "exit.json")
        if isinstance(exit_code, int):
            return ContainerState(Phase.EXITED, exit_code)
        if (state / "running.json").exists():
            return ContainerState(Phase.RUNNING)
        return ContainerState(Phase.CREATED if state.exists() else Phase.ABSENT)

    def process(self, execution: str) -> Identity | None:
        return None

    def stop(self, execution: str, grace_seconds: float) -> None:
        if self.inspect(execution).phase is Phase.RUNNING:
            write_json(self._state(execution) / "exit.json", STOPPED_EXIT_CODE)

    def remove(self, execution: str) -> None:
        remove_tree(self._state(execution))

    def executions(self) -> dict[str, Phase]:
        states = self._root.iterdir() if self._root.is_dir() else ()
        return {state.name: self.inspect(state.name).phase for state in states}

    def _state(self, execution: str) -> Path:
        if not _EXECUTION.fullmatch(execution):
            raise SpecificationRefused(f"not the name of an execution: {execution!r}")
        return self._root / execution


def read_script(directory: Path) -> Script:
    """The script that the brief in the execution's directory asks for; raises `SpecificationRefused` without one."""
    try:
        brief = load_brief(beneath.read_file(directory, BRIEF_NAME, most_bytes=MOST_BRIEF_BYTES))
    except (OSError, ProtocolError) as exc:
        raise SpecificationRefused(f"no readable brief: {exc}") from exc
    wishes = _wishes(brief)
    declared = [*brief.outputs, *(brief.agent.outputs if brief.agent else [])]
    outputs = dict.fromkeys(declared, "ok")
    success = {"status": "succeeded", "outputs": outputs, "summary": "", "error": None, "exit_code": 0}
    records = [("ready", {}), *((item["type"], item["data"]) for item in wishes.get("records", []))]
    finished = wishes.get("finished", success)
    is_held = bool(wishes.get("hold", False))
    if finished is not None and not is_held:
        records.append(("finished", finished))
    return Script(tuple(records), int(wishes.get("exit_code", 0)), is_held)


def _wishes(brief: Brief) -> dict[str, Any]:
    try:
        value = json.loads(brief.script or "")
    except ValueError:
        return {}
    wishes = value.get("stub") if isinstance(value, dict) else None
    return wishes if isinstance(wishes, dict) else {}


def _play(script: Script, directory: Path) -> None:
    now = time.time_ns() // 1_000_000
    lines = (encode_record(Record(n, now, kind, data)) for n, (kind, data) in enumerate(script.records, start=1))
    with os.fdopen(beneath.open_file(directory, JOURNAL_NAME, os.O_WRONLY | os.O_APPEND), "ab") as file:
        file.write(b"".join(lines))
