"""Every process that the work starts: spawned, reaped and, at the end, killed in one place."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from typing import Any, Callable

from .memory import offered_first, open_score
from .procfs import descendants

PR_SET_CHILD_SUBREAPER, PR_SET_DUMPABLE = 36, 4
_OF_OURSELVES = (
    (PR_SET_CHILD_SUBREAPER, 1, "orphans of the work cannot be adopted"),
    (PR_SET_DUMPABLE, 0, "the work, which has our user, can write to our memory"),
)
TERM_SECONDS = 0.4
KILL_SECONDS = 1.0
_PAUSE_SECONDS = 0.01


class WorkStopped(Exception):
    """The execution is ending: nothing new may start."""


class Child:
    """One started process. `exited` is a file descriptor that becomes readable when it has exited."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.exit_code: int | None = None
        self.exited, self._exited_end = os.pipe()

    def end(self, exit_code: int) -> None:
        """Note the exit; negative is a signal's number."""
        self.exit_code = exit_code
        os.close(self._exited_end)


class Children:
    """The processes of the work.

    The main thread calls `reap` after SIGCHLD and `stop` at the end; nobody else waits for a child. Orphans are
    adopted (subreaper), so they are reaped while the work runs and found when it ends.
    """

    def __init__(self, warn: Callable[[str], None]) -> None:
        self._warn = warn
        self._lock = threading.Lock()
        self._running: dict[int, Child] = {}
        self._is_subreaper = False
        self._is_closed = False

    def spawn(self, arguments: list[str], **options: Any) -> Child:
        """Start a process in a session of its own; the options are those of `subprocess.Popen`.

        Raises `WorkStopped` once `stop` was called, OSError when the program cannot be started.
        """
        import subprocess

        self._adopt_orphans()
        with self._lock:
            if self._is_closed:
                raise WorkStopped("the execution is ending")
            with offered_first():
                process = subprocess.Popen(arguments, stdin=subprocess.DEVNULL, start_new_session=True, **options)
            process.returncode = 0  # `reap` collects it, not this object
            child = self._running[process.pid] = Child(process.pid)
        return child

    def reap(self) -> None:
        """Collect every exited child, adopted ones too."""
        with self._lock:
            while True:
                try:
                    pid, status = os.waitpid(-1, os.WNOHANG)
                except ChildProcessError:
                    return
                if pid == 0:
                    return
                child = self._running.pop(pid, None)
                if child is not None:
                    child.end(os.waitstatus_to_exitcode(status))

    def kill(self, child: Child) -> None:
        """SIGKILL to the child, its process group and its descendants."""
        with self._lock:  # not reaped meanwhile, so its number is still its own
            if child.exit_code is None:
                _send(signal.SIGKILL, descendants(child.pid))
                _send_group(signal.SIGKILL, child.pid)

    def stop(self) -> None:
        """End every descendant: SIGTERM, a moment, SIGKILL. Takes under 1.5 s whatever they do."""
        with self._lock:
            self._is_closed = True
        if self._end_all(signal.SIGTERM, TERM_SECONDS):
            return
        self._end_all(signal.SIGKILL, KILL_SECONDS)

    def _end_all(self, number: int, seconds: float) -> bool:
        limit = time.monotonic() + seconds
        told: set[int] = set()
        while True:
            self.reap()
            alive = descendants(os.getpid()) | set(self._running)
            if not alive:
                return True
            if time.monotonic() > limit:
                return False
            _send(number, alive - told)
            if number != signal.SIGKILL:
                told |= alive
            time.sleep(_PAUSE_SECONDS)

    def _adopt_orphans(self) -> None:
        if self._is_subreaper:
            return
        self._is_subreaper = True
        open_score()
        for option, value, lacks in _OF_OURSELVES:
            try:
                _prctl(option, value)
            except (ImportError, OSError, AttributeError) as exc:
                self._warn(f"{lacks}: {exc}")


def _prctl(option: int, value: int) -> None:
    import ctypes

    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def _send(number: int, pids: set[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):  # it is gone, or became another user's
            os.kill(pid, number)


def _send_group(number: int, group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
