"""An execution's directory, and the real runtime started in it as a process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from runtime_image.djinn_runtime.protocol import (
    BRIEF_NAME,
    JOURNAL_NAME,
    AgentBrief,
    Brief,
    Record,
    decode_record,
    dump_brief,
)

ROOT = Path(__file__).resolve().parents[2]
RUNTIME = ROOT / "runtime_image"
LIMIT_SECONDS = 60.0
ALL_TOOLS = ["read", "write", "edit", "bash", "grep", "find", "ls"]


@dataclass
class Execution:
    """One execution under test."""

    directory: Path
    workspace: Path
    socket: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def command(self, script: str, **changes: Any) -> Ended:
        """Run a script to its end."""
        self.give(mode="command", script=script, **changes)
        return self.run()

    def agent(self, *, tools: list[str] | None = None, outputs: list[str] | None = None, **changes: Any) -> Ended:
        """Run the agent to its end."""
        self.give_agent(tools=tools, outputs=outputs, **changes)
        return self.run()

    def give_agent(
        self,
        *,
        tools: list[str] | None = None,
        outputs: list[str] | None = None,
        max_turns: int = 20,
        output_schema: Any = None,
        results: list[str] | None = None,
        **changes: Any,
    ) -> None:
        """Write the brief of an agent."""
        agent = AgentBrief(
            name="tester",
            model="scripted",
            system="You test.",
            prompt="Do it.",
            tools=ALL_TOOLS if tools is None else tools,
            outputs=outputs or [],
            max_turns=max_turns,
            output_schema=output_schema,
            results=results or [],
        )
        self.give(mode="agent", agent=agent, **changes)

    def give(self, **values: Any) -> None:
        """Write the brief."""
        defaults = {
            "execution": "x1",
            "token": "secret-token",
            "workspace": str(self.workspace),
            "gateway_socket": str(self.socket),
            "deadline_seconds": 50,
            "command_timeout_seconds": 20,
        }
        (self.directory / BRIEF_NAME).write_bytes(dump_brief(Brief(**{**defaults, **values})))

    def start(self, *, python: list[str] | None = None, **environment: str) -> subprocess.Popen[bytes]:
        """Start the runtime."""
        command = [*(python or [sys.executable, "-m", "djinn_runtime"]), str(self.directory)]
        variables = {"PATH": os.environ["PATH"], "PYTHONPATH": str(RUNTIME), **environment}
        process = subprocess.Popen(command, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.processes.append(process)
        return process

    def run(self, **options: Any) -> Ended:
        """Start the runtime and wait for its end."""
        return self.wait(self.start(**options))

    def wait(self, process: subprocess.Popen[bytes]) -> Ended:
        """Wait for the end of a started runtime."""
        _, errors = process.communicate(timeout=LIMIT_SECONDS)
        return Ended(process.returncode, self.journal(), errors.decode())

    def journal(self) -> bytes:
        """The journal as it is now."""
        path = self.directory / JOURNAL_NAME
        return path.read_bytes() if path.exists() else b""

    def records(self) -> list[Record]:
        """The whole records of the journal as it is now."""
        return records(self.journal())

    def until(self, is_true: Callable[[], bool]) -> None:
        """Wait until something holds."""
        limit = time.monotonic() + LIMIT_SECONDS
        while not is_true():
            if time.monotonic() > limit:
                raise AssertionError(f"not in time; the journal: {self.journal()!r}")
            time.sleep(0.01)


@dataclass(frozen=True)
class Ended:
    """How the runtime ended."""

    exit_code: int
    journal: bytes
    errors: str

    @property
    def records(self) -> list[Record]:
        """Every record."""
        return records(self.journal)

    @property
    def finished(self) -> dict[str, Any]:
        """The data of the last record, which must be `finished`."""
        last = self.records[-1]
        assert last.type == "finished", self.journal[-2000:] + self.errors.encode()
        return last.data

    @property
    def reason(self) -> str:
        """Why the execution failed."""
        return str(self.finished["error"]["reason"])

    @property
    def message(self) -> str:
        """What the failure says."""
        return str(self.finished["error"]["message"])

    def of(self, kind: str) -> list[dict[str, Any]]:
        """The data of all records of a type."""
        return [record.data for record in self.records if record.type == kind]

    def text(self, kind: str, **wanted: str) -> str:
        """The joined text of all records of a type."""
        fits = [data for data in self.of(kind) if wanted.items() <= data.items()]
        return "".join(data["text"] for data in fits)

    def result(self, index: int = 0) -> dict[str, Any]:
        """The result of a tool call."""
        return self.of("tool_result")[index]


def records(journal: bytes) -> list[Record]:
    """The records in a journal's whole lines; every line must be one."""
    return [decode_record(line) for line in journal.split(b"\n")[:-1]]


def brief_values(**changes: Any) -> bytes:
    """A brief as JSON with some values replaced, also by wrong ones."""
    brief = Brief("x1", "command", "t", "/tmp", "/none", 10, script="true")
    return json.dumps({**asdict(brief), **changes}).encode()
