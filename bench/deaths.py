"""Killing the agents worker, and when the containers of this installation die, by the engine's own word."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterable
from types import TracebackType

from bench.installation import Up
from bench.runs import wait_until


def kill_agents_worker(up: Up) -> None:
    """SIGKILL the agents worker; the stack starts a new one."""
    os.kill(up.agents_worker(), signal.SIGKILL)


class Deaths:
    """Hears of each container that ends, inside the block."""

    def __init__(self) -> None:
        self._at: dict[int, float] = {}

    def __enter__(self) -> Deaths:
        from django.conf import settings

        label = f"label=djinn.installation={settings.INSTALLATION_NAME}"
        self._events = subprocess.Popen(
            ["docker", "events", "--filter", "event=die", "--filter", label, "--format", "{{json .}}"],
            stdout=subprocess.PIPE,
            text=True,
        )
        threading.Thread(target=self._listen, name="deaths", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._events.kill()
        self._events.wait(10)

    def moments(self, executions: Iterable[int]) -> list[float]:
        """When their containers ended, in seconds since the epoch, once all have."""
        wanted = list(executions)
        wait_until(lambda: all(pk in self._at for pk in wanted), f"the containers of {wanted} were to end")
        return [self._at[pk] for pk in wanted]

    def _listen(self) -> None:
        assert self._events.stdout is not None
        for line in self._events.stdout:
            event = json.loads(line)
            self._at[int(event["Actor"]["Attributes"]["djinn.execution"])] = event["timeNano"] / 1e9
