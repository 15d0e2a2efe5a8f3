"""Mode "agent" with an output schema: one question without tools, whose answer is a JSON value that follows the schema.

The schema is always in the prompt and, until the provider refuses it, in the request as well: some servers enforce
`response_format`, some ignore it without a word, some answer 400 or 422 to it. So the gateway checks every answer.
"""

from __future__ import annotations

import http.client
import json
import re
from dataclasses import replace
from typing import Any

from .answer import Answer, BadAnswer
from .arguments import parse_arguments
from .clip import cut
from .gateway import Gateway, Refused
from .journal import Journal
from .model import Model
from .outcome import Ended, Outcome, failed, outputs_problem
from .protocol import ANSWER, AgentBrief, Brief
from .retry import Trouble

CHECK_PATH = "/v1/outputs/check"
MAX_CALLS = 3  # one question and two repairs
MAX_TEXT = 1024 * 1024
MAX_RESENT_BYTES = 64 * 1024
_MAX_CHECK_BYTES = 256 * 1024
_REFUSES_FORMAT = (400, 422)
_FENCE = "```"
INVALID, UNMATCHED = "invalid_output", "unmatched"  # reasons of failure

TASK = "Answer with one JSON value that follows this JSON Schema, and with nothing else:"
REPAIR = (
    "This answer cannot be used:\n{problems}\nAnswer again with the whole JSON value, corrected, and with nothing else."
)


def run_structured(brief: Brief, journal: Journal, trouble: Trouble) -> Outcome:
    """Ask the brief's agent until its answer follows the schema. Raises `Ended` when it does not come to that."""
    assert brief.agent is not None
    return _Question(brief, brief.agent, journal, trouble).run()


class _Question:
    def __init__(self, brief: Brief, agent: AgentBrief, journal: Journal, trouble: Trouble) -> None:
        assert agent.output_schema is not None
        self._journal = journal
        self._gateway = Gateway(brief, journal, trouble)
        self._model = Model(self._gateway, agent, [], journal, max_text=MAX_TEXT)
        self._format = _response_format(agent.output_schema)
        self._max_output_tokens = agent.max_output_tokens
        schema = json.dumps(agent.output_schema["schema"], ensure_ascii=False)
        self._messages: list[dict[str, Any]] = [
            {"role": "system", "content": f"{agent.system}\n\n{TASK}\n{schema}"},
            {"role": "user", "content": agent.prompt},
        ]

    def run(self) -> Outcome:
        problems: list[str] = []
        value: Any = None
        reason = INVALID
        for turn in range(1, MAX_CALLS + 1):
            answer = self._ask(turn)
            self._require_whole(answer)
            value, problems, reason = self._read(answer.text, turn)
            if not problems:
                return Outcome(outputs={ANSWER: value})
            self._tell(f"answer {turn} of at most {MAX_CALLS} cannot be used: {'; '.join(problems)}")
            self._messages += [
                {"role": "assistant", "content": cut(answer.text, MAX_RESENT_BYTES) or "(nothing)"},
                {"role": "user", "content": REPAIR.format(problems="\n".join(f"- {text}" for text in problems))},
            ]
        words = "; ".join(problems)
        if reason == UNMATCHED:
            return replace(failed(UNMATCHED, f"none of {MAX_CALLS} answers: {words}"), outputs={ANSWER: value})
        return failed(INVALID, f"none of {MAX_CALLS} answers follows the schema; the last one: {words}")

    def _ask(self, turn: int) -> Answer:
        """The next answer. A provider that refuses the request is asked once again without `response_format`."""
        try:
            return self._model.ask(self._messages, turn, **self._format)
        except Refused as exc:
            if not self._format or exc.status not in _REFUSES_FORMAT or exc.kind not in ("", "refused"):
                raise
            self._format = {}
            self._tell(f"asked again without response_format: {exc}")
            return self._model.ask(self._messages, turn)

    def _require_whole(self, answer: Answer) -> None:
        """Raise `Ended` for an answer that was declined or cut off: asking again would not change that."""
        if answer.refusal or answer.finish_reason == "content_filter":
            raise Ended(failed("model", f"the model refused to answer: {answer.refusal or 'content filter'}"))
        if answer.finish_reason == "length" or len(answer.text) > MAX_TEXT:
            limit = f"{self._max_output_tokens} tokens" if self._max_output_tokens else "the longest that is possible"
            raise Ended(failed("output_limit", f"the answer was cut off at its limit, {limit}"))

    def _read(self, text: str, turn: int) -> tuple[Any, list[str], str]:
        """The value in an answer, what is wrong with it, and the reason with which it fails if it stays so."""
        try:
            value = parse_arguments(_json_text(text))
        except ValueError as exc:
            return None, [f"it is no JSON value: {exc}"], INVALID
        problem = outputs_problem({ANSWER: value})
        return (value, [problem], INVALID) if problem else (value, *self._check(value, turn))

    def _check(self, value: Any, turn: int) -> tuple[list[str], str]:
        body = json.dumps({"value": value}).encode()
        try:
            return self._gateway.post(CHECK_PATH, body, turn, _problems)
        except Refused as exc:
            reason = exc.outcome.reason or "error"
            message = f"the answer could not be checked: {exc}"
            raise Ended(failed("error" if reason == "model" else reason, message)) from exc

    def _tell(self, message: str) -> None:
        self._journal.append("log", level="warning", message=message)


def _response_format(wanted: dict[str, Any]) -> dict[str, Any]:
    """OpenAI's `response_format`; a name there is at most 64 letters, digits, `_` and `-`."""
    name = re.sub(r"[^A-Za-z0-9_-]", "_", wanted["name"])[:64] or ANSWER
    schema = {"name": name, "strict": wanted["strict"], "schema": wanted["schema"]}
    return {"response_format": {"type": "json_schema", "json_schema": schema}}


def _json_text(text: str) -> str:
    """The whole text, or what is in its only fenced block; raises ValueError when there is nothing."""
    if not text.strip():
        raise ValueError("the answer is empty")
    lines = text.splitlines()
    fences = [index for index, line in enumerate(lines) if line.strip().startswith(_FENCE)]
    if len(fences) != 2:
        return text
    first, last = fences
    return "\n".join(lines[first + 1 : last]) or "\n"


def _problems(response: http.client.HTTPResponse) -> tuple[list[str], str]:
    answer = json.loads(response.read(_MAX_CHECK_BYTES))
    problems = answer.get("problems") if isinstance(answer, dict) else None
    if not isinstance(problems, list) or not all(isinstance(problem, str) for problem in problems):
        raise BadAnswer("a check without a list of problems")
    return problems, UNMATCHED if answer.get("reason") == UNMATCHED else INVALID
