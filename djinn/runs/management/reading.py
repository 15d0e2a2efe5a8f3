"""What the commands show of runs: a list, one run, its log, and the log as it grows."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError
from rich.console import Console
from rich.markup import escape

from djinn.events.log import PAGE, LoggedEvent, last_seq, read_after, read_before
from djinn.pipelines.history import named
from djinn.runs.deciders import waiting_in
from djinn.runs.lines import Lines
from djinn.runs.models import Run
from djinn.runs.selectors import duration_of, run_view
from djinn.runs.terminal import LOOK_SECONDS, follow, has_succeeded, how_to_answer, print_result, typed

STOPPED = 130
"""The exit code of a command that Ctrl-C ended: 128 and the number of SIGINT."""
LONGEST_LINE = 4000
MOST_LINES = 1000
EVENTS_BACK = 300
PIECES = frozenset({"text", "thinking", "output"})


def list_runs(*, status: str, pipeline: str, limit: int) -> Iterator[str]:
    """A line for each run, the newest first."""
    wanted = {name: value for name, value in (("status", status), ("pipeline", pipeline)) if value}
    rows = Run.objects.filter(**wanted).select_related("created_by").defer("definition", "agents", "inputs")
    for run in rows.order_by("-pk")[:limit]:
        duration = duration_of(run.started_at, run.ended_at)
        took = "" if duration is None else f"{duration.total_seconds():.0f} s"
        who = run.created_by.get_username() if run.created_by else "command line"
        line = f"{run.pk:>6}  {run.status:<9}  {run.created_at:%Y-%m-%d %H:%M} UTC  {took:>8}  {run.pipeline}  by {who}"
        yield f"{line}  {run.message[:200]}".rstrip()


def show_run(run: Run, *, has_diff: bool) -> None:
    """Status, steps, what waits for people, and where its page and its log are."""
    console = Console()
    print_result(run_view(run), console, url=settings.BASE_URL, has_diff=has_diff)
    for approval in waiting_in(run):
        for line in how_to_answer(approval):
            console.print(escape(line), soft_wrap=True)


def follow_to_the_end(run: Run, *, after: int = 0) -> None:
    """Show the run until it has ended, and what came of it.

    Raises `CommandError` with exit code 1 unless it succeeded, and with 130 when Ctrl-C stopped the showing.
    """
    console = Console()
    try:
        view = follow(run, console, after=after)
    except KeyboardInterrupt as exc:
        raise _stopped(run, "follow") from exc
    print_result(view, console, url=settings.BASE_URL)
    if not has_succeeded(view):
        raise CommandError(f"Run {run.pk} {view.row.status}.")


def recent(run: Run) -> int:
    """The event behind which the last few hundred are."""
    return max(0, last_seq(run.stream) - EVENTS_BACK)


def print_log(run: Run, *, step: str, tail: int, is_followed: bool) -> None:
    """The last `tail` lines of the log of the run, or of one step, 0 for all; then what comes until the run ends."""
    if step and not _has_step(run, step):
        steps = ", ".join(dict.fromkeys(run.step_runs.order_by("number").values_list("step", flat=True)))
        raise CommandError(f"Run {run.pk} has no step {step!r} so far. Its steps: {steps or 'none'}.")
    try:
        _print_log(run, step, tail, is_followed=is_followed)
    except KeyboardInterrupt as exc:
        raise _stopped(run, "logs", "-f") from exc


def _print_log(run: Run, step: str, tail: int, *, is_followed: bool) -> None:
    console, lines = Console(highlight=False), Lines(longest=LONGEST_LINE)
    newest = last_seq(run.stream)
    last: deque[Any] = deque(maxlen=tail or None)
    for event in _events(run, newest, tail, step):
        last.extend(lines.of(event))
    for line in last:
        console.print(line, soft_wrap=True)
    if is_followed:
        for event in _coming(run, newest):
            for line in lines.of(event) if _is_of(event, step) else ():
                console.print(line, soft_wrap=True)
    for line in lines.flush():
        console.print(line, soft_wrap=True)


def _coming(run: Run, seq: int) -> Iterator[LoggedEvent]:
    """The events behind `seq`, each as it happens, until the run has ended."""
    while True:
        run.refresh_from_db(fields=["status"])
        is_over = run.is_final
        events = read_after(run.stream, seq)
        yield from events
        if events:
            seq = events[-1].seq
        elif is_over:
            return
        else:
            time.sleep(LOOK_SECONDS)


def _stopped(run: Run, *verb: str) -> CommandError:
    run.refresh_from_db(fields=["status"])
    still = run.status if run.is_final else f"still {run.status}"
    text = f"Stopped following; run {run.pk} {still}: {settings.BASE_URL}/runs/{run.pk}/"
    return CommandError(f"{text}\nFollow it again: {typed('runs', *verb, run.pk)}", returncode=STOPPED)


def _events(run: Run, newest: int, tail: int, step: str) -> Iterator[LoggedEvent]:
    """The events up to `newest` that give at least `tail` lines, or all; the first lines may be too many."""
    if not tail:
        seq = 0
        while seq < newest and (page := read_after(run.stream, seq)):
            yield from (event for event in page if event.seq <= newest and _is_of(event, step))
            seq = page[-1].seq
        return
    found: deque[LoggedEvent] = deque()
    count, end = 0, newest
    while end > 0 and count <= tail:
        page = read_before(run.stream, end, limit=PAGE)
        if not page:
            break
        chosen = [event for event in page if _is_of(event, step)]
        found.extendleft(reversed(chosen))
        count += sum(str(event.data.get("text", "")).count("\n") for event in chosen if event.type in PIECES)
        count += sum(event.type not in PIECES for event in chosen)
        end = page[0].seq - 1
    yield from found


def _is_of(event: LoggedEvent, step: str) -> bool:
    name, item = str(event.data.get("step", "")), str(event.data.get("item", ""))
    return not step or step in (name, named(name, item))


def _has_step(run: Run, step: str) -> bool:
    return any(step in (name, named(name, item)) for name, item in run.step_runs.values_list("step", "item"))
