"""The text that a model gets before the task."""

from __future__ import annotations

from collections.abc import Sequence

from djinn.agents.definition import Agent

PLACE = """\
You work in a container of your own. The project is in {workspace}; paths are relative to it. There is no network.
What you write there is kept; everything else is gone when you end."""


def system_text(agent: Agent, *, workspace: str) -> str:
    """Persona, then where the agent is."""
    return f"{agent.persona}\n\n{PLACE.format(workspace=workspace)}"


def task_text(
    *, task: str, step: str, outputs: Sequence[str], went_wrong: str, rule: str = "", notes: Sequence[str] = ()
) -> str:
    """The step's task, the results it owes and what they have to be, words for the agent, and what went wrong in the
    attempt before, if any."""
    parts = [task.strip() or f"Do the step {step}."]
    if outputs:
        parts.append("Results that you owe when you complete: " + ", ".join(outputs) + ".")
    if rule:
        parts.append(f"{rule}, and nothing else: no other word, no remark beside it.")
    if notes:
        parts.append("Words for you:\n" + "\n".join(f"- {note}" for note in notes))
    if went_wrong:
        parts.append(
            f"An attempt at this step failed before: {went_wrong}\nThe workspace is as it was before that attempt."
        )
    return "\n\n".join(parts)
