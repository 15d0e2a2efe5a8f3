"""Invariants of what was done and told: I3, I4."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from runtime_image.djinn_runtime.protocol import ProtocolError, decode_record
from tests.faults.harness import marks
from tests.faults.seen import Seen, Violation, repeated
from tests.stack.live import Row

JSON = Any


def work_begins_once(seen: Seen) -> Iterator[Violation]:
    """I3: counted by the work itself, in its side file, not by us."""
    tries = [
        (step["run_id"], step["step"], step.get("item", ""), step["visit"], step["attempt"]) for step in seen.steps
    ]
    for key in repeated(tries):
        yield Violation("I3", f"run {key[0]}", f"the try {key[1:]} was made twice")
    for number in seen.executions:
        told = [mark["what"] for mark in marks(seen.side(number))]
        for what, word in (("start", "began"), ("end", "ended")):
            if told.count(what) > 1:
                yield Violation("I3", f"execution {number}", f"its work {word} {told.count(what)} times")


def log_is_the_journals(seen: Seen) -> Iterator[Violation]:
    """I4."""
    for run in seen.runs:
        events = seen.events(run["id"])
        if [event["seq"] for event in events] != list(range(1, len(events) + 1)):
            yield Violation("I4", f"run {run['id']}", "its numbers are not 1 to n")
        known = {step["execution_id"] for step in seen.steps_of(run["id"])}
        for event in events:
            if event["execution"] is not None and event["execution"] not in known:
                yield Violation("I4", f"run {run['id']}", f"event {event['seq']} is of another run's execution")
        for step in seen.steps_of(run["id"]):
            if step["execution_id"] is not None:
                yield from _of_execution(seen, seen.executions[step["execution_id"]], events)


def _of_execution(seen: Seen, execution: Row, events: list[Row]) -> Iterator[Violation]:
    subject = f"execution {execution['id']}"
    logged = [event for event in events if event["execution"] == execution["id"]]
    shipped = [(event["offset"], event["type"], _known(event["data"])) for event in logged]
    written = list(_records(seen.journal(execution["id"]), execution["tags"]))
    if (wrong := _difference(written[: len(shipped)], shipped)) is not None:
        yield Violation("I4", subject, wrong)
    elif execution["status"] in {"exited", "killed"} and len(shipped) < len(written):
        yield Violation("I4", subject, f"{len(written)} records are in its journal, {len(shipped)} in the log")
    count = sum(1 for _, _, data in shipped if data is not None)
    if execution["journal_count"] > count:
        yield Violation("I4", subject, f"it says that {execution['journal_count']} records are in the log: {count} are")
    if any(event["type"] == "finished" for event in logged) != (execution["outcome"] is not None):
        yield Violation("I4", subject, "its outcome and its record 'finished' do not go together")
    if (wrong := _other_end(execution)) is not None and execution["id"] not in seen.given_up:
        yield Violation("I4", subject, wrong)
    yield from _told_what_was_done(seen, execution, logged)


def _other_end(execution: Row) -> str | None:
    """What is wrong when an execution did not end as the last record of its journal says."""
    outcome, status, reason = execution["outcome"], execution["status"], execution["reason"]
    if outcome is None and status == "exited" and not reason:
        return "it succeeded without having said so"
    is_refused = reason == "lost" or (status == "exited" and bool(reason))
    if outcome is not None and outcome.get("status") == "succeeded" and is_refused:
        return f"it said that it succeeded, and is {status} for the reason {reason!r}"
    return None


def _difference(written: list[Any], shipped: list[Any]) -> str | None:
    """What is wrong with the events, as long as there are any, in words."""
    if len(shipped) > len(written):
        return f"{len(shipped)} records are in the log, {len(written)} in its journal"
    for expected, found in zip(written, shipped, strict=True):
        if expected[0] != found[0]:
            return f"the log has byte {found[0]} where its journal has a record at byte {expected[0]}"
        if expected[2] is not None and expected != found:
            return f"the record at byte {found[0]} is another one in the log: {str(found)[:200]}"
    return None


def _records(journal: bytes, tags: dict[str, JSON]) -> Iterator[tuple[int, str, JSON]]:
    """Offset, type and data of each record as the log must have it; data None for a line that is no record."""
    offset, number = 0, 0
    for line in journal.splitlines(keepends=True):
        try:
            record = decode_record(line.removesuffix(b"\n"))
        except ProtocolError:
            record = None
        if record is None or record.n != number + 1:
            yield offset, "output", None
        else:
            number = record.n
            yield offset, record.type, {**record.data, **tags}
        offset += len(line)


def _known(data: dict[str, JSON]) -> JSON:
    """The data, or None for what the relay made of a line that is no record."""
    return None if data.get("stream") == "journal" and "note" in data else data


def _told_what_was_done(seen: Seen, execution: Row, logged: list[Row]) -> Iterator[Violation]:
    """What the work says of itself in its side file, against what the log tells of its output."""
    did = [f"did {mark['n']}" for mark in marks(seen.side(execution["id"])) if mark["what"] == "did"]
    if not did:
        return
    output = "".join(str(event["data"].get("text", "")) for event in logged if event["type"] == "output")
    told = [line for line in output.splitlines() if line.startswith("did ")]
    is_whole = execution["status"] == "exited" and not execution["reason"]
    if told != did[: len(told)] or (is_whole and told != did):
        yield Violation("I4", f"execution {execution['id']}", f"it did {did}, the log tells {told}"[:300])
