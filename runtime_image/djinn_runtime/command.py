"""Mode "command": one script, its output, the values it hands back."""

from __future__ import annotations

import codecs
import os
import re
from dataclasses import replace

from .children import Children
from .journal import Journal
from .memory import oom_kills
from .outcome import Outcome, failed, outputs_problem
from .output_file import OutputFileError, read_outputs
from .protocol import Brief
from .shell import Command, Ran, describe, environment, shell, shell_code

OUTPUT_FILE_NAME = "outputs"
SCRIPT_NAME = "script"
KILLED = 137  # the exit code of SIGKILL, which a shell hands on when it was a command of its own that was killed
_END_BYTES = 2000
_MOST_CHARACTERS = 200
_COLOUR = re.compile("\x1b\\[[0-9;?]*[ -/]*[@-~]")
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_LINE_END = re.compile("[\r\n]+")


def run_command(brief: Brief, directory: str, journal: Journal, children: Children) -> Outcome:
    """Run the brief's script in its workspace; a value is an output when its name is declared."""
    path = _create(directory, OUTPUT_FILE_NAME, "")
    script = _create(directory, SCRIPT_NAME, brief.script or "")  # not an argument: those end at 128 KiB
    output = _Output(journal)
    kills = oom_kills()
    try:
        ran = Command(
            children,
            _arguments(script),
            directory=brief.workspace,
            variables=environment({**brief.environment, "DJINN_OUTPUT": path}),
            timeout_seconds=brief.deadline_seconds,
            on_output=output.take,
        ).run()
    except OSError as exc:
        return failed("error", f"the script cannot be started: {exc}")
    output.close()
    last_line = output.last_line()
    if shell_code(ran.exit_code) == KILLED and oom_kills() > kills:
        words = "it needed more memory than its limit"
        return failed("out_of_memory", ": ".join(filter(None, (words, last_line))), KILLED)
    return _outcome(brief, journal, ran, path, last_line)


def _create(directory: str, name: str, text: str) -> str:
    path = os.path.join(os.path.abspath(directory), name)
    with open(path, "wb") as file:
        file.write(text.encode("utf-8", "replace"))
    return path


def _arguments(script: str) -> list[str]:
    if shell() == "/bin/bash":
        return ["/bin/bash", "-eo", "pipefail", script]
    return ["/bin/sh", "-e", script]


class _Output:
    """Passes what the script writes to the journal and remembers its end."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._end = b""

    def take(self, chunk: bytes) -> None:
        self._end = (self._end + chunk)[-_END_BYTES:]
        self._journal.stream("output", self._decoder.decode(chunk))

    def close(self) -> None:
        self._journal.stream("output", self._decoder.decode(b"", True))

    def last_line(self) -> str:
        """The last line that says something, without colours and control characters; cut when it is long."""
        text = _COLOUR.sub("", self._end.decode("utf-8", "replace"))
        for line in reversed(_LINE_END.split(text)):
            words = " ".join(_CONTROL.sub(" ", line).split())
            if words:
                return words if len(words) <= _MOST_CHARACTERS else words[: _MOST_CHARACTERS - 1] + "…"
        return ""


def _outcome(brief: Brief, journal: Journal, ran: Ran, path: str, last_line: str) -> Outcome:
    if ran.exit_code != 0:
        message = ": ".join(filter(None, (describe(ran.exit_code), last_line)))
        return replace(failed("error", message, shell_code(ran.exit_code)), outputs=_given(brief, journal, path))
    try:
        found = read_outputs(path)
    except OutputFileError as exc:
        return failed("error", str(exc), 0)
    for name in sorted(set(found) - set(brief.outputs)):
        journal.append(
            "log", level="warning", message=f"the script set {name[:200]!r}, which the step does not declare"
        )
    outputs = {name: found[name] for name in brief.outputs if name in found}
    problem = _missing(brief, found) or outputs_problem(outputs)
    if problem:
        return replace(failed("error", problem, 0), outputs={} if outputs_problem(outputs) else outputs)
    return Outcome(outputs=outputs, summary="the script succeeded", exit_code=0)


def _given(brief: Brief, journal: Journal, path: str) -> dict[str, str]:
    """The declared outputs that a script had set before it failed; none when they cannot be kept."""
    try:
        found = read_outputs(path)
    except OutputFileError as exc:
        journal.append("log", level="warning", message=f"the outputs of the failed script are lost: {exc}")
        return {}
    outputs = {name: found[name] for name in brief.outputs if name in found}
    problem = outputs_problem(outputs)
    if problem:
        journal.append("log", level="warning", message=f"the outputs of the failed script are lost: {problem}")
    return {} if problem else outputs


def _missing(brief: Brief, found: dict[str, str]) -> str | None:
    names = [name for name in brief.outputs if name not in found]
    return f"the script did not set its outputs: {', '.join(names)}" if names else None
