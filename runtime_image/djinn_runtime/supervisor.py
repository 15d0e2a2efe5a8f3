"""From the start to the last record: guard, brief, journal, deadline, signals, end.

The main thread only waits: for the work (a thread), for a signal, for the deadline, for the journal's failure. The
first of them decides the outcome; then everything that the work started is killed and `finished` is written.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections import deque

from .brief_check import read_brief
from .children import Children, WorkStopped
from .journal import Journal, JournalStopped
from .outcome import Ended, Outcome, failed
from .protocol import (
    EXIT_ALREADY_STARTED,
    EXIT_FINISHED,
    EXIT_JOURNAL_BROKEN,
    GUARD_NAME,
    JOURNAL_NAME,
    MAX_JOURNAL_BYTES,
    SCRATCH_NAME,
    Brief,
    ProtocolError,
)
from .reserve import Reserve
from .retry import Trouble


def main(arguments: list[str]) -> int:
    """Run one execution; the exit code."""
    started = time.monotonic()
    if len(arguments) != 1:
        _complain("usage: python3 -m djinn_runtime EXECUTION_DIRECTORY")
        return EXIT_JOURNAL_BROKEN
    bells = _Bells()
    try:
        os.mkdir(os.path.join(arguments[0], SCRATCH_NAME, GUARD_NAME))
    except FileExistsError:
        return EXIT_ALREADY_STARTED
    except OSError as exc:
        _complain(f"the guard cannot be made: {exc}")
        return EXIT_JOURNAL_BROKEN
    return _Supervisor(arguments[0], started, bells).run()


_LONGEST_WAIT_SECONDS = 3600.0


class _Bells:
    """What wakes the main thread: an outcome, or a signal, whichever thread the kernel gave it to."""

    def __init__(self) -> None:
        self._outcomes: deque[Outcome] = deque()
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._reader, False)
        os.set_blocking(self._writer, False)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        cancelled = failed("cancelled", "stopped by a signal")
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: self._outcomes.append(cancelled))
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def ring(self, outcome: Outcome) -> None:
        """Wake the main thread with an outcome; from any thread."""
        self._outcomes.append(outcome)
        with contextlib.suppress(BlockingIOError):  # a full pipe wakes as well
            os.write(self._writer, b"\0")

    def wait(self, seconds: float) -> Outcome | None:
        """The first outcome; None after a signal of a child, or when the time is up."""
        if not self._outcomes:
            select.select([self._reader], [], [], min(seconds, _LONGEST_WAIT_SECONDS))
            with contextlib.suppress(BlockingIOError):
                os.read(self._reader, 4096)
        return self._outcomes.popleft() if self._outcomes else None


class _Supervisor:
    def __init__(self, directory: str, started: float, bells: _Bells) -> None:
        self._directory = directory
        self._scratch = os.path.join(directory, SCRATCH_NAME)
        self._started = started
        self._bells = bells
        self._children = Children(self._warn)
        self._trouble = Trouble()
        self._journal: Journal | None = None

    def run(self) -> int:
        reserve = Reserve(self._scratch)
        problem, brief = "", None
        try:
            brief = read_brief(self._directory)
        except (OSError, ProtocolError) as exc:
            problem = str(exc)
        try:
            path = os.path.join(self._directory, JOURNAL_NAME)
            self._journal = Journal(path, brief.journal_bytes if brief else MAX_JOURNAL_BYTES, reserve, self._fail)
        except OSError as exc:
            _complain(f"the journal cannot be opened: {exc}")
            return EXIT_JOURNAL_BROKEN
        outcome = self._await(self._journal, brief) if brief else failed("error", problem)
        return self._finish(self._journal, outcome)

    def _await(self, journal: Journal, brief: Brief) -> Outcome:
        threading.Thread(target=self._work, args=(journal, brief), name="work", daemon=True).start()
        limit = self._started + brief.deadline_seconds
        while True:
            left = limit - time.monotonic()
            if left <= 0:
                return failed("timeout", f"the deadline of {brief.deadline_seconds} s has passed{self._trouble.words}")
            outcome = self._bells.wait(left)
            if outcome is not None:
                return outcome
            self._children.reap()

    def _work(self, journal: Journal, brief: Brief) -> None:
        try:
            journal.append("ready", python=sys.version.split()[0], mode=brief.mode)
            self._bells.ring(_perform(brief, self._scratch, journal, self._children, self._trouble))
        except Ended as end:
            self._bells.ring(end.outcome)
        except (JournalStopped, WorkStopped):
            pass  # the main thread knows why: it or the journal said so
        except Exception as exc:  # the edge of the work: whatever broke becomes the outcome
            import traceback

            traceback.print_exc()
            self._bells.ring(failed("error", f"the runtime broke: {type(exc).__name__}: {exc}"))

    def _finish(self, journal: Journal, outcome: Outcome) -> int:
        journal.seal()
        self._children.stop()
        bare = failed("output_limit", "the journal is full", outcome.exit_code)
        code = journal.finish(outcome.data(), bare.data())
        if code != EXIT_FINISHED:
            _complain("the last record cannot be written, or not to the disk")
        return code

    def _fail(self, reason: str, message: str) -> None:
        self._bells.ring(failed(reason, message))

    def _warn(self, message: str) -> None:
        if self._journal is not None:
            self._journal.append("log", level="warning", message=message)


def _complain(message: str) -> None:
    with contextlib.suppress(OSError):  # nobody may read it any more; the exit code must be the one that was meant
        sys.stderr.write(f"{message}\n")
        sys.stderr.flush()


def _perform(brief: Brief, scratch: str, journal: Journal, children: Children, trouble: Trouble) -> Outcome:
    if brief.mode == "command":
        from .command import run_command

        return run_command(brief, scratch, journal, children)
    if brief.agent is not None and brief.agent.output_schema is not None:
        from .structured import run_structured

        return run_structured(brief, journal, trouble)
    from .agent import run_agent

    return run_agent(brief, journal, children, trouble)
