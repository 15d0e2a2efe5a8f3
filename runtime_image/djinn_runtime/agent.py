"""Mode "agent": ask the model, run the tools that it calls, tell it the results, until it ends or a limit does."""

from __future__ import annotations

import time
from typing import Any

from .answer import Answer, Call
from .arguments import parse_arguments
from .children import Children
from .clip import cut
from .gateway import Gateway
from .journal import Journal
from .model import Model
from .outcome import Ended, Outcome, failed
from .protocol import AgentBrief, Brief, clean
from .retry import Trouble
from .tools import offered
from .tools.base import Tool, Toolbox, ToolError, checked_arguments, schema

MAX_REMINDERS = 3
TOOL_NOTES_BYTES = 512  # for what a tool adds to an output that it has cut itself

ENDING_NOTE = (
    "When the work is done, call the tool `complete` with every declared output and a short summary. "
    "When it cannot be done, call the tool `fail` and say why. Nobody answers questions in plain text."
)
REMINDER = "The step is not finished: call the tool `complete` with its outputs, or `fail`, or go on working."


def run_agent(brief: Brief, journal: Journal, children: Children, trouble: Trouble) -> Outcome:
    """Run the brief's agent to its end."""
    assert brief.agent is not None
    return Agent(brief, brief.agent, journal, children, trouble).run()


class Agent:
    """The loop: leaving it is the exception `Ended`, which carries the outcome."""

    def __init__(self, brief: Brief, agent: AgentBrief, journal: Journal, children: Children, trouble: Trouble) -> None:
        self._journal = journal
        self._max_turns = agent.max_turns
        self._max_result_bytes = brief.tool_output_bytes + TOOL_NOTES_BYTES
        self._outputs = list(dict.fromkeys([*agent.outputs, *brief.outputs]))
        self._toolbox = Toolbox(brief=brief, outputs=self._outputs, journal=journal, children=children)
        self._tools = self._offer(agent)
        gateway = Gateway(brief, journal, trouble)
        self._model = Model(gateway, agent, [schema(tool) for tool in self._tools.values()], journal)
        self._messages: list[dict[str, Any]] = [
            {"role": "system", "content": f"{agent.system}\n\n{_note(self._outputs)}"},
            {"role": "user", "content": agent.prompt},
        ]
        self._turn = 0
        self._reminders = 0

    def run(self) -> Outcome:
        """Loop until the model or a limit ends the work."""
        try:
            while True:
                self._act(self._query())
        except Ended as end:
            return end.outcome

    def _offer(self, agent: AgentBrief) -> dict[str, Tool]:
        tools, unknown = offered(agent.tools, self._outputs, agent.results)
        if unknown:
            names = ", ".join(unknown)
            self._journal.append("log", level="warning", message=f"tools that this runtime does not have: {names}")
        return tools

    def _query(self) -> Answer:
        if self._turn >= self._max_turns:
            raise Ended(failed("turns", f"the agent did not end within {self._max_turns} turns"))
        self._turn += 1
        return self._model.ask(self._messages, self._turn)

    def _act(self, answer: Answer) -> None:
        if answer.text or answer.calls:
            self._messages.append(clean(answer.message(_resent)))
        if not answer.calls:
            self._end_or_remind(answer)
            return
        self._reminders = 0
        for call in answer.calls:
            result = self._execute(call, answer.finish_reason)
            self._messages.append({"role": "tool", "tool_call_id": call.id, "content": result})

    def _end_or_remind(self, answer: Answer) -> None:
        if answer.text.strip() and not self._outputs:
            raise Ended(Outcome(summary=str(clean(answer.text))))
        if self._reminders >= MAX_REMINDERS:
            raise Ended(failed("error", f"the model was reminded {MAX_REMINDERS} times and called no tool"))
        self._reminders += 1
        self._messages.append({"role": "user", "content": REMINDER})

    def _execute(self, call: Call, finish_reason: str) -> str:
        """Run one tool call; the text for the model. Whatever is wrong with the call is told to the model."""
        self._journal.append("tool_call", id=call.id, name=call.name, arguments=_shown(call.arguments))
        began = time.monotonic()
        is_error = False
        try:
            text = self._run(call, finish_reason)
        except (ToolError, OSError) as exc:
            text, is_error = f"Error: {exc}", True
        except Ended:
            self._record(call, "the work has ended", False, began)
            raise
        text = cut(str(clean(text)), self._max_result_bytes)
        self._record(call, text, is_error, began)
        return text

    def _run(self, call: Call, finish_reason: str) -> str:
        tool = self._tools.get(call.name)
        if tool is None:
            raise ToolError(f"there is no tool {call.name!r}; the tools are {', '.join(self._tools)}")
        try:
            arguments = parse_arguments(call.arguments)
        except ValueError as exc:
            hint = "; the answer was cut off by its token limit" if finish_reason == "length" else ""
            raise ToolError(f"the arguments cannot be read as JSON: {exc}{hint}") from exc
        return tool.run(self._toolbox, checked_arguments(tool, arguments))

    def _record(self, call: Call, text: str, is_error: bool, began: float) -> None:
        seconds = round(time.monotonic() - began, 3)
        self._journal.append("tool_result", id=call.id, name=call.name, text=text, is_error=is_error, seconds=seconds)


def _note(outputs: list[str]) -> str:
    return f"{ENDING_NOTE} The declared outputs: {', '.join(outputs) or 'none'}."


def _shown(arguments: str) -> Any:
    """Arguments as JSON when they are, else as the model wrote them."""
    try:
        return parse_arguments(arguments)
    except ValueError:
        return arguments


def _resent(call: Call) -> str:
    """The arguments for the history, which providers parse: what is no JSON object would spoil every later call."""
    return call.arguments if isinstance(_shown(call.arguments), dict) and call.arguments else "{}"
