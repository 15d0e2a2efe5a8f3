"""Seeing an execution through: launch, relay until it ends, conclude. One thread of an agents worker for each."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import structlog
from django.conf import settings
from django.db import InterfaceError, OperationalError, transaction

from djinn.core.database import released
from djinn.core.faults import fault
from djinn.events.log import NewEvent, append
from djinn.executions.conclude import conclude
from djinn.executions.disk import disk_watch, overuse_text, watched_of
from djinn.executions.ending import KILLED_BY_KERNEL
from djinn.executions.launch import has_begun, launch
from djinn.executions.lease import Fenced, Lease, keeper, seconds_since_start
from djinn.executions.models import Execution
from djinn.executions.relay import Relay, release_connection
from djinn.executions.services import request_stop
from djinn.executions.states import Reason
from djinn.runner.base import ContainerState, Phase, Runner, RunnerError
from djinn.runner.git import WorkspaceError
from djinn.runner.journal import JournalRefused

log = structlog.get_logger(__name__)

LIVELY_SECONDS, LIVELY_PAUSE, IDLE_PAUSE = 2.0, 0.03, 0.1
"""How often the journal is looked at: every 30 ms while it grew in the last 2 s, else every 100 ms."""
INSPECT_SECONDS = 1.5
ENGINE_PATIENCE_SECONDS = 60.0
"""How long an engine may be away when a container has to be started, before the step is given back to be retried."""
DEADLINE_GRACE_SECONDS = 10.0
EXIT_GRACE_SECONDS = 5.0
LATE_WORD_SECONDS = 2.0
MOST_HALVES = 4

stopping = threading.Event()
"""Set when this worker shuts down: every supervision lets go of its container at once and leaves it running."""


class _Detached(Exception):
    """This worker shuts down; the container goes on without it."""


def see_through(lease: Lease, runner: Runner) -> bool:
    """Supervise the execution to its end; False when it was left to another worker before that."""
    with (
        structlog.contextvars.bound_contextvars(execution=lease.execution_id, lease=lease.token),
        keeper.holding(lease),
    ):
        try:
            with released():
                _Supervision(lease, runner).run()
            return True
        except Fenced:
            log.warning("fenced")
        except _Detached:
            with released():
                lease.release()
            log.info("detached")
        except (OperationalError, InterfaceError) as exc:
            # The lease runs out and somebody goes on from the stored offset.
            log.warning("database_away", error=str(exc))
        return False


class _Supervision:
    """One execution under one lease."""

    def __init__(self, lease: Lease, runner: Runner) -> None:
        self.lease = lease
        self.runner = runner
        self.execution = Execution.objects.get(pk=lease.execution_id)
        self.relay = Relay(self.execution, lease)
        self.state = ContainerState(Phase.ABSENT)
        self.stop_reason = self.execution.stop_reason
        self.watched = watched_of(self.execution, lease, runner)
        self._grew = self._inspected = time.monotonic()
        self._deadline = 0.0
        self._halves = 0
        self._has_told = False

    def run(self) -> None:
        """Launch, relay, conclude; what goes wrong on the way becomes the execution's ending."""
        with disk_watch.watching(self.watched, reserve_bytes=settings.DISK_RESERVE_BYTES):
            self._see_to_the_end()

    def _see_to_the_end(self) -> None:
        failure: RunnerError | WorkspaceError | None = None
        try:
            self._start()
            self._follow()
        except JournalRefused as exc:
            failure = exc
            self._stop(str(Reason.REJECTED))
        except (RunnerError, WorkspaceError) as exc:
            failure = exc
        log.info("execution_ends", phase=str(self.state.phase), exit_code=self.state.exit_code)
        stop_reason = self.stop_reason or self._unheard_reason()
        overuse = self._overuse(stop_reason) if failure is None or self._is_full() else ""
        conclude(
            self.execution,
            self.lease,
            self.relay,
            self.state,
            stop_reason=stop_reason,
            failure=failure,
            overuse=overuse,
        )

    def _is_full(self) -> bool:
        return self.watched.overuse is not None

    def _overuse(self, stop_reason: str) -> str:
        """What to say when it has used too much of the disk, also when it ended before the watch saw it; else empty."""
        if stop_reason not in {"", Reason.DISK}:
            return ""
        overuse = disk_watch.last_look(self.watched)
        return overuse_text(overuse, self.execution) if overuse or stop_reason else ""

    def _unheard_reason(self) -> str:
        """Why it shall stop, when somebody else of this host has stopped it before we heard of that."""
        stored = Execution.objects.values_list("stop_reason", flat=True).get(pk=self.execution.pk)
        has_succeeded = (self.execution.outcome or {}).get("status") == "succeeded"
        return "" if has_succeeded and stored != Reason.DISK else stored

    def _start(self) -> None:
        """Launch, unless a stop was asked for before anything began; wait for an engine that is away."""
        if self.stop_reason and not self._has_begun():
            return
        give_up = time.monotonic() + ENGINE_PATIENCE_SECONDS
        while True:
            try:
                self.state = launch(self.execution, self.lease, self.runner, is_full=self._is_full)
                break
            except (RunnerError, WorkspaceError) as exc:
                self.stop_reason = self.lease.stop_reason
                if exc.permanent or self.stop_reason or time.monotonic() > give_up:
                    raise
                self._tell("the container cannot be started yet; trying again", str(exc))
            self._pause(1.0)
        self._deadline = time.monotonic() + self._seconds_left()

    def _has_begun(self) -> bool:
        """Whether there is something to stop; the engine is not asked about what nobody has prepared."""
        return bool(self.execution.image_id) and has_begun(self.execution, self.runner.inspect(self.execution.key))

    def _follow(self) -> None:
        """Relay until the journal has its end or the container is gone."""
        while self.execution.outcome is None and not self._has_ended():
            has_grown = self.relay.ship()
            if self.lease.stop_reason or time.monotonic() > self._deadline:
                self._stop(self.lease.stop_reason or str(Reason.TIMEOUT))
            elif self._is_full() and not self.stop_reason:
                self._stop_for_disk()
            elif self.execution.forged:
                self._stop(str(Reason.FORGED))
            if has_grown:  # a journal that never ends must not keep a stop, or this worker's own, from being heard
                self._grew = time.monotonic()
                self._go_on()
                continue
            release_connection()
            lively = time.monotonic() - self._grew < LIVELY_SECONDS
            self._pause(LIVELY_PAUSE if lively else IDLE_PAUSE)
        self._see_exit()

    def _stop_for_disk(self) -> None:
        """Stop it, and store that first: whoever supervises it next does not see what it has held."""
        log.warning("disk_overuse", overuse=str(self.watched.overuse))
        with released():
            request_stop(execution_id=self.execution.pk, reason=Reason.DISK)
        self._stop(str(Reason.DISK))

    def _has_ended(self) -> bool:
        """Whether the container is gone, asked every second and a half; an engine that is away says nothing.

        One that was started and is still only created was lost by its engine: it counts as gone after a few looks.
        """
        if time.monotonic() - self._inspected > INSPECT_SECONDS:
            self._inspected = time.monotonic()
            self._inspect()
            self._halves = self._halves + 1 if self.state.phase is Phase.CREATED else 0
        return self.state.phase in {Phase.EXITED, Phase.ABSENT} or self._halves >= MOST_HALVES

    def _inspect(self) -> None:
        try:
            seen = self.runner.inspect(self.execution.key)
            # Counted while it ran is as good as told afterwards: the count is gone with the container.
            self.state = replace(seen, out_of_memory=seen.out_of_memory or self.state.out_of_memory)
        except RunnerError as exc:
            self._tell("the container engine does not answer; the container may be running on", str(exc))

    def _see_exit(self) -> None:
        """After the last record the container is about to exit; one that stays is stopped.

        An engine that is away is waited for: until it says that the container has ended, the rest of the journal, the
        exit code and the files are not known.
        """
        give_up = time.monotonic() + EXIT_GRACE_SECONDS
        while self.state.phase is Phase.RUNNING and time.monotonic() < give_up:
            self._inspect()
            if self.state.phase is Phase.RUNNING:
                self._pause(0.02)
        give_up = time.monotonic() + ENGINE_PATIENCE_SECONDS
        while self.state.phase is Phase.RUNNING and time.monotonic() < give_up:
            self._stop(self.stop_reason)
        self._await_word_of_memory()

    def _await_word_of_memory(self) -> None:
        """The engine hears of a kill for want of memory apart from the exit, and sometimes later."""
        give_up = time.monotonic() + LATE_WORD_SECONDS
        while self._may_have_lacked_memory() and time.monotonic() < give_up:
            self._pause(0.1)
            self._inspect()

    def _may_have_lacked_memory(self) -> bool:
        is_asked = self.stop_reason or self.lease.stop_reason
        return self.state.exit_code == KILLED_BY_KERNEL and not self.state.out_of_memory and not is_asked

    def _stop(self, reason: str) -> None:
        """SIGTERM, then SIGKILL; the runtime uses the time between them to write its last record."""
        self.stop_reason = self.stop_reason or reason
        fault("stop.before")
        self.lease.check()
        try:
            self.runner.stop(self.execution.key, settings.STOP_GRACE_SECONDS)
            fault("stop.after")
        except RunnerError as exc:
            self._tell("the container cannot be stopped while its engine does not answer", str(exc))
            self._pause(1.0)
        self._inspect()

    def _seconds_left(self) -> float:
        """Until the deadline, with a grace: the runtime inside ends the work first, and tells why."""
        with released():
            age = seconds_since_start(self.execution.pk)
        return max(0.0, self.execution.timeout_seconds + DEADLINE_GRACE_SECONDS - age)

    def _pause(self, seconds: float) -> None:
        """Wait, unless something wants attention. Raises `Fenced`, or `_Detached` when this worker shuts down."""
        self._go_on()
        if self.lease.wake.wait(seconds):
            self.lease.wake.clear()
            time.sleep(0.01)

    def _go_on(self) -> None:
        self.lease.check()
        if stopping.is_set():
            raise _Detached

    def _tell(self, text: str, error: str) -> None:
        """Say once in the run's log what an operator would want to know; every time in our own."""
        log.warning("engine_away", error=error)
        if not self._has_told:
            self._has_told = True
            with released(), transaction.atomic():
                append(
                    self.execution.stream, [NewEvent("notice", {"text": f"{text} ({error})", **self.execution.tags})]
                )
