"""Which workers live: those that ran a canary task within the last minute.

Beat rings `core.call_canaries` every 20 s. The control worker that takes it has proved itself, and rings for every
known worker in that worker's own queue, and for unknown ones in the queue that all agents workers share.
A worker whose places are all taken cannot run a canary; it is alive while it renews the leases that it holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

import structlog
from django.conf import settings
from django.db.models import DurationField, ExpressionWrapper, F
from django.db.models.functions import Now

from djinn.core.dispatch import drop_queues, ring_canaries
from djinn.core.models import WorkerBeat

log = structlog.get_logger(__name__)

FORGET_SECONDS = 600.0
"""For how long a silent worker is still named."""
Kind = WorkerBeat.Kind
State = Literal["alive", "busy", "silent"]

_present: list[WorkerBeat] = []
"""What this process is, when it is a worker."""
_isolation: list[Callable[[], bool]] = []
_busy_hosts: list[Callable[[], Iterable[str]]] = []


@dataclass(frozen=True)
class WorkerView:
    """A worker, and whether it is heard of. Busy: no canary came through, but it tends what it holds."""

    worker: str
    kind: str
    host: str
    silent_seconds: float
    state: State
    isolates: bool


def register_busy_hosts(hosts: Callable[[], Iterable[str]]) -> None:
    """Let an app above tell on which hosts an agents worker renews leases right now."""
    _busy_hosts.append(hosts)


def register_isolation(isolates: Callable[[], bool]) -> None:
    """Let an app above tell whether what this process starts for agents is kept apart from its machine."""
    _isolation.append(isolates)


def queue_of(worker: str) -> str:
    """The queue that this worker alone reads."""
    return f"canary@{worker}"


def become_worker(worker: str, queues: Iterable[str]) -> None:
    """Remember what this process is, by the queues that it reads."""
    kinds = sorted(set(queues) & set(Kind.values))
    _present[:] = [WorkerBeat(worker=worker, kind=kind, host=settings.HOST_NAME) for kind in kinds]


def introduce_worker() -> None:
    """Have this worker run its first canary as soon as it takes messages."""
    ring_canaries(*{queue_of(beat.worker) for beat in _present})


def note_canary() -> None:
    """A canary runs in this process."""
    for beat in _present:
        isolates = beat.kind != Kind.AGENTS or all(found() for found in _isolation)
        WorkerBeat.objects.update_or_create(
            worker=beat.worker, kind=beat.kind, defaults={"host": beat.host, "ran_at": Now(), "isolates": isolates}
        )


def call_canaries() -> None:
    """A canary runs in this control worker; ring for one in every other worker, and forget the long silent ones."""
    note_canary()
    _forget()
    here = {beat.worker for beat in _present}
    known = set(WorkerBeat.objects.values_list("worker", flat=True))
    ring_canaries(Kind.AGENTS.value, *map(queue_of, sorted(known - here)))


def worker_views() -> list[WorkerView]:
    """Every worker that was heard of within the last ten minutes, by kind, host and name."""
    silence = ExpressionWrapper(Now() - F("ran_at"), output_field=DurationField())
    busy = {host for hosts in _busy_hosts for host in hosts()}
    return [_view(beat, beat.silence.total_seconds(), busy) for beat in WorkerBeat.objects.annotate(silence=silence)]


def hosts_not_isolating() -> list[str]:
    """The hosts on which agents run as plain processes, as far as their workers were heard of."""
    rows = WorkerBeat.objects.filter(kind=Kind.AGENTS, isolates=False)
    return list(rows.order_by("host").values_list("host", flat=True).distinct())


def workers_alive(kind: str, host: str = "", views: Sequence[WorkerView] | None = None) -> bool:
    """Whether some worker of that kind is alive, on this host or anywhere; among `views` when they are at hand."""
    known = worker_views() if views is None else views
    return any(view.state != "silent" and view.kind == kind and (not host or view.host == host) for view in known)


def problems(views: Iterable[WorkerView]) -> list[str]:
    """Why Djinn cannot work although the database answers, in plain words; empty when it can.

    While no control worker is alive nobody rings for the others, so nothing is said about them.
    """
    alive = {view.kind for view in views if view.state != "silent"}
    for kind in Kind.values:
        if kind not in alive:
            seconds = f"{settings.SILENT_SECONDS:g}"
            return [f"no {kind} worker has run a canary task in the last {seconds} s"]
    return []


def _view(beat: WorkerBeat, silent_seconds: float, busy: set[str]) -> WorkerView:
    state: State = "alive" if silent_seconds <= settings.SILENT_SECONDS else "silent"
    if state == "silent" and beat.kind == Kind.AGENTS and beat.host in busy:
        state = "busy"
    return WorkerView(beat.worker, beat.kind, beat.host, max(0.0, silent_seconds), state, beat.isolates)


def _forget() -> None:
    long_silent = Now() - timedelta(seconds=max(FORGET_SECONDS, 10 * settings.SILENT_SECONDS))
    forgotten = list(WorkerBeat.objects.filter(ran_at__lt=long_silent))
    for beat in forgotten:
        beat.delete()
        log.info("worker_forgotten", worker=beat.worker, kind=beat.kind)
    if forgotten:
        drop_queues(*{queue_of(beat.worker) for beat in forgotten})
