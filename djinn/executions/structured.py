"""Answers that must follow a schema: checked for the container that asks, and again before one counts as a success."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from djinn.core.errors import AppError
from djinn.executions.ending import Ending
from djinn.executions.models import Execution
from djinn.executions.states import ExecutionStatus, Reason
from djinn.pipelines.results import none_of
from djinn.pipelines.schema import JSON, OutputSchema
from djinn.pipelines.structured import is_deeper, outputs_from, place_of
from runtime_image.djinn_runtime.protocol import ANSWER

MAX_VALUE_BYTES = 256 * 1024
MAX_VALUE_DEPTH = 64
PROGRAM = Path(__file__).with_name("answer_check.py")
CPU_SECONDS, QUICK_SECONDS = 5.0, 0.25
PATIENCE_SECONDS = 60
"""For a program that may use 5 s of CPU time, on a machine that may be busy."""
TOO_LONG = "it cannot be checked: that takes too long"


class CheckFailed(AppError):
    """The program that checks answers did not run to its end."""


def problems_of(value: JSON, schema: Mapping[str, JSON]) -> list[str]:
    """What keeps the value from following the schema, at most 20 problems, each with its JSON Pointer.

    Formats are not asserted, and nothing outside of the schema is referred to. Takes at most 5 s of CPU time, then
    that is the problem; raises `CheckFailed` when it could not be checked at all.
    """
    found = _problems(value, schema, CPU_SECONDS)
    return [TOO_LONG] if found is None else found


def quick_problems_of(value: JSON, schema: Mapping[str, JSON]) -> list[str] | None:
    """The same, None when a quarter of a second of CPU time is not enough to tell."""
    return _problems(value, schema, QUICK_SECONDS)


def _problems(value: JSON, schema: Mapping[str, JSON], cpu_seconds: float) -> list[str] | None:
    if is_deeper(value, MAX_VALUE_DEPTH):
        return [f"it is nested deeper than {MAX_VALUE_DEPTH} levels"]
    try:
        question = json.dumps({"schema": schema, "value": value}, allow_nan=False).encode()
    except ValueError as exc:
        return [f"it is no JSON: {exc}"]
    if len(question) - len(json.dumps(schema)) > MAX_VALUE_BYTES:
        return [f"it is larger than {MAX_VALUE_BYTES} bytes"]
    return _asked(question, cpu_seconds)


def order_of(wanted: OutputSchema | None) -> dict[str, JSON] | None:
    """A step's schema as an order holds it: text, since models answer in its order of keys, which JSON columns lose."""
    if wanted is None:
        return None
    return {"name": wanted.name, "strict": wanted.strict, "schema_text": json.dumps(wanted.schema, ensure_ascii=False)}


def output_schema_of(execution: Execution) -> dict[str, Any] | None:
    """name, strict and schema in the execution's own order, or None when its answer is free."""
    wanted = (execution.order.get("agent") or {}).get("output_schema")
    if not wanted:
        return None
    return {"name": wanted["name"], "strict": wanted["strict"], "schema": json.loads(wanted["schema_text"])}


def unmatched_answer(execution: Execution, value: JSON) -> str:
    """What is wrong with an answer that follows the schema, when one of its outputs has to be one of a few results and
    none is; empty when it can be used."""
    agent = execution.order.get("agent") or {}
    wanted = output_schema_of(execution)
    if not agent.get("results") or wanted is None:
        return ""
    return none_of(agent["results"], agent["outputs"], outputs_from(value, agent["outputs"], wanted["schema"]))


def checked(ending: Ending, execution: Execution) -> Ending:
    """The ending, unless it is a success whose answer does not follow the execution's schema."""
    wanted = output_schema_of(execution)
    if wanted is None or ending.status != ExecutionStatus.EXITED or ending.reason:
        return ending
    outputs = (execution.outcome or {}).get("outputs")
    if not isinstance(outputs, dict) or set(outputs) != {ANSWER}:
        problems = ["there is no answer"]
    else:
        problems = problems_of(outputs[ANSWER], wanted["schema"])
    if not problems:
        return ending
    return Ending(ending.status, Reason.INVALID_OUTPUT, f"the answer does not follow the schema: {'; '.join(problems)}")


def _asked(question: bytes, cpu_seconds: float) -> list[str] | None:
    try:
        done = subprocess.run(
            [sys.executable, "-I", str(PROGRAM), str(cpu_seconds)],
            input=question,
            capture_output=True,
            timeout=PATIENCE_SECONDS,
            check=False,
            env={},
        )
        if done.returncode in {-signal.SIGXCPU, -signal.SIGPROF}:
            return None
        if done.returncode != 0:
            raise CheckFailed(
                f"answer_check ended with {done.returncode}: {done.stderr[-2000:].decode(errors='replace')}"
            )
        return [f"{place_of(path)}: {message}" for path, message in json.loads(done.stdout)]
    except (OSError, subprocess.TimeoutExpired, ValueError) as exc:
        raise CheckFailed(f"answer_check cannot be asked: {exc}") from exc
