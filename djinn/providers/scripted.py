"""The provider `scripted`: plays turns from a file, for the demo, tests and rehearsals. It costs nothing.

`scripted/demo` plays `pipelines/scripts/demo.yaml`:

    steps:
      FIX:
        - - say: I look at the module first.        # visit 1, turn 1
            call: {read: {path: wordstats/core.py}}
          - call: {complete: {summary: Done.}}      # visit 1, turn 2
        - - call: {complete: {summary: Again.}}     # visit 2; the last visit repeats
      PLAN:
        - - json: {items: [1, 2]}                   # the answer of a step with an output schema

Which turn is next follows from the conversation itself (how often the model has spoken), so a gateway that was killed
goes on with the same turn.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import yaml

from djinn.core.errors import UserError
from djinn.providers.base import Body, CallContext, refused
from djinn.providers.faults import Fault

PIECE = re.compile(r"\S+\s*|\s+")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


class ScriptedProvider:
    """Plays the scripts of one folder; `seconds_between` words makes it look alive."""

    name = "scripted"

    def __init__(self, directory: Path, *, seconds_between: float = 0.01) -> None:
        self._directory = directory
        self._pause = seconds_between

    async def chat(self, model: str, body: Body, context: CallContext) -> AsyncGenerator[Body]:
        """The turn's words one by one, then its tool calls, then the usage (a word counts as a token)."""
        turn = self._turn(model, body, context)
        words = PIECE.findall(json.dumps(turn["json"]) if "json" in turn else turn.get("say") or "")
        for word in words:
            yield _chunk(model, {"content": word})
            await asyncio.sleep(self._pause)
        calls = turn.get("calls") or ([turn["call"]] if turn.get("call") else [])
        for index, call in enumerate(calls):
            (name, arguments), *_ = call.items()
            function = {"name": name, "arguments": json.dumps(arguments or {})}
            identity = f"call_{_spoken(body)}_{index}"
            yield _chunk(
                model, {"tool_calls": [{"index": index, "id": identity, "type": "function", "function": function}]}
            )
        yield _chunk(model, {}, finish="tool_calls" if calls else "stop")
        yield {**_chunk(model, {}), "choices": [], "usage": _usage(body, len(words) + 20 * len(calls))}

    def _turn(self, model: str, body: Body, context: CallContext) -> dict[str, Any]:
        visits = self._script(model).get("steps", {}).get(context.step)
        if not visits:
            raise refused(f"script {model!r} has no turns for step {context.step!r}")
        turns = visits[min(context.visit, len(visits)) - 1]
        number = _spoken(body)
        if number >= len(turns):
            raise refused(f"script {model!r} has {len(turns)} turns for this visit of {context.step}")
        turn: dict[str, Any] = turns[number]
        return turn

    def check(self, model: str) -> None:
        """Raise `UserError` unless there is a script of that name."""
        if not self._exists(model):
            raise UserError(f"There is no script {model!r}: {self._directory / model}.yaml is not a file.")

    def _exists(self, model: str) -> bool:
        return bool(NAME.fullmatch(model)) and (self._directory / f"{model}.yaml").is_file()

    def _script(self, model: str) -> dict[str, Any]:
        if not self._exists(model):
            raise refused(f"there is no script {model!r}", fault=Fault.UNKNOWN_MODEL, status=404)
        text = (self._directory / f"{model}.yaml").read_text(encoding="utf-8")
        script = yaml.load(text, Loader=yaml.CSafeLoader)
        if not isinstance(script, dict) or not isinstance(script.get("steps"), dict):
            raise refused(f"script {model!r} is not a mapping with steps")
        return script


def _spoken(body: Body) -> int:
    return sum(1 for message in body.get("messages", []) if message.get("role") == "assistant")


def _usage(body: Body, output: int) -> dict[str, int]:
    read = sum(len(str(message.get("content") or "").split()) for message in body.get("messages", []))
    return {"prompt_tokens": read, "completion_tokens": output, "total_tokens": read + output}


def _chunk(model: str, delta: Body, *, finish: str | None = None) -> Body:
    choice = {"index": 0, "delta": {"role": "assistant", **delta}, "finish_reason": finish}
    return {"id": "scripted", "object": "chat.completion.chunk", "created": 0, "model": model, "choices": [choice]}
