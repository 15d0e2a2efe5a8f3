"""Running one program: its output as it comes, its exit code, a time limit, no waiting for what it left behind."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from typing import Callable

from .children import Child, Children

READ_BYTES = 64 * 1024
_DRAIN_BYTES = 1024 * 1024  # a pipe holds 64 KiB unless enlarged, at most 1 MiB: what the exited program wrote
_EXIT_SECONDS = 5.0
_LONGEST_WAIT_SECONDS = 3600.0

OnOutput = Callable[[bytes], None]


@dataclass(frozen=True)
class Ran:
    """How a program ended. `exit_code` is negative for a signal, None when it could not even be killed.

    `is_held` tells that processes it left behind keep its output open.
    """

    exit_code: int | None
    is_timed_out: bool
    is_held: bool


def environment(extra: dict[str, str]) -> dict[str, str]:
    """The clean environment of the work: nothing of the runtime's own but PATH.

    Python writes to a pipe only when it has much to write or ends; unbuffered, what a program prints is written then.
    """
    path = os.environ.get("PATH") or "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return {"PATH": path, "HOME": "/tmp", "LANG": "C.UTF-8", "TERM": "dumb", "PYTHONUNBUFFERED": "1", **extra}


def shell() -> str:
    """bash, or sh in an image without it."""
    return "/bin/bash" if os.access("/bin/bash", os.X_OK) else "/bin/sh"


def describe(exit_code: int | None) -> str:
    """An exit in words; negative is a signal's number, None is a process that could not be ended."""
    if exit_code is None:
        return "it could not be ended"
    if exit_code >= 0:
        return f"exit code {exit_code}"
    try:
        return f"killed by {signal.Signals(-exit_code).name}"
    except ValueError:
        return f"killed by signal {-exit_code}"


def shell_code(exit_code: int | None) -> int | None:
    """The exit code as a shell counts it: 128 and the signal's number."""
    return exit_code if exit_code is None or exit_code >= 0 else 128 - exit_code


class Command:
    """One program to run. Its stdout and stderr are one pipe: two could not tell the order of writing."""

    def __init__(
        self,
        children: Children,
        arguments: list[str],
        *,
        directory: str,
        variables: dict[str, str],
        timeout_seconds: float,
        on_output: OnOutput,
    ) -> None:
        self._children = children
        self._arguments = arguments
        self._directory = directory
        self._variables = variables
        self._timeout_seconds = timeout_seconds
        self._on_output = on_output
        self._pipe: int | None = None

    def run(self) -> Ran:
        """Run to the exit or the time limit. Raises OSError when the program cannot be started."""
        child = self._spawn()
        try:
            is_timed_out = not self._follow(child, time.monotonic() + self._timeout_seconds)
            if is_timed_out:
                self._children.kill(child)
                self._follow(child, time.monotonic() + _EXIT_SECONDS)
            self._drain()
            return Ran(child.exit_code, is_timed_out, is_held=self._pipe is not None)
        finally:
            os.close(child.exited)
            if self._pipe is not None:
                _leave(self._pipe)

    def _spawn(self) -> Child:
        reader, writer = os.pipe()
        try:
            child = self._children.spawn(
                self._arguments,
                cwd=self._directory,
                env=self._variables,
                stdout=writer,
                stderr=subprocess.STDOUT,
            )
        except BaseException:
            os.close(reader)
            raise
        finally:
            os.close(writer)
        os.set_blocking(reader, False)
        self._pipe = reader
        return child

    def _follow(self, child: Child, limit: float) -> bool:
        """Pass output on until the exit; False when the limit came first."""
        while True:
            left = limit - time.monotonic()
            if left <= 0:
                return False
            poller = select.poll()
            poller.register(child.exited, select.POLLIN)
            if self._pipe is not None:
                poller.register(self._pipe, select.POLLIN)
            ready = {descriptor for descriptor, _ in poller.poll(min(left, _LONGEST_WAIT_SECONDS) * 1000)}
            if self._pipe in ready:
                self._read()
            if child.exited in ready:
                return True

    def _drain(self) -> None:
        """Read what is in the pipe now, without waiting for whoever still holds it."""
        size = 0
        while size < _DRAIN_BYTES:
            read = self._read()
            if not read:
                break
            size += read

    def _read(self) -> int:
        if self._pipe is None:
            return 0
        try:
            chunk = os.read(self._pipe, READ_BYTES)
        except BlockingIOError:
            return 0
        if chunk:
            self._on_output(chunk)
        else:
            os.close(self._pipe)
            self._pipe = None
        return len(chunk)


def _leave(pipe: int) -> None:
    try:
        threading.Thread(target=_discard, args=(pipe,), name="discard", daemon=True).start()
    except RuntimeError:  # no thread to be had: the limit of processes is reached
        os.close(pipe)


def _discard(pipe: int) -> None:
    """Read to the end, so that a process left in the background neither blocks nor dies of a closed pipe."""
    os.set_blocking(pipe, True)
    while os.read(pipe, READ_BYTES):
        pass
    os.close(pipe)
