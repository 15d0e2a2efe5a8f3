"""Invariants of states and their order: I1, I2, I5, I6, I12."""

from __future__ import annotations

from collections.abc import Iterator

from djinn.executions.states import Reason
from djinn.runner.base import Phase
from tests.faults.harness import marks
from tests.faults.seen import FINAL_EXECUTIONS, FINAL_RUNS, FINAL_STEPS, Seen, Violation
from tests.stack.live import Row

FINALS = {"runs_run": FINAL_RUNS, "runs_steprun": FINAL_STEPS, "executions_execution": FINAL_EXECUTIONS}
WORDS = {"runs_run": "run", "runs_steprun": "step run", "executions_execution": "execution"}
CANCEL_SECONDS = 5.0
"""How long after a cancel a container may still begin: its worker hears of it with the next renewal of its lease."""
STARTS = {"step_queued": "was created", "step_started": "was claimed"}
"""Events that no run has behind a cancel, and what they tell."""
REASONS = {str(reason) for reason in Reason} - {""}


def final_is_final(seen: Seen) -> Iterator[Violation]:
    """I1, from the audit alone: rows could have been put back."""
    ends: dict[tuple[str, int], int] = {}
    for row in seen.audit:
        kind, before, after = row["kind"], row["old_status"], row["new_status"]
        subject = f"{WORDS[kind]} {row['row_id']}"
        if before == after:
            continue
        if before in FINALS[kind]:
            yield Violation("I1", subject, f"went from {before} to {after}")
        if after in FINALS[kind]:
            ends[kind, row["row_id"]] = ends.get((kind, row["row_id"]), 0) + 1
    for (kind, number), count in ends.items():
        if count > 1:
            yield Violation("I1", f"{WORDS[kind]} {number}", f"ended {count} times")


def only_holders_write(seen: Seen) -> Iterator[Violation]:
    """I2: tokens only grow, and between two claims only the holder's process changes what the token guards."""
    for row in seen.audit:
        if row["kind"] != "executions_execution":
            continue
        subject = f"execution {row['row_id']}"
        if row["new_token"] < row["old_token"]:
            yield Violation("I2", subject, f"its token fell from {row['old_token']} to {row['new_token']}")
        elif row["is_guarded"] and row["new_token"] == row["old_token"] and not _is_owners(row):
            yield Violation(
                "I2", subject, f"{row['writer']} wrote under the token {row['new_token']} of {row['owner']}"
            )


def _is_owners(row: Row) -> bool:
    return bool(row["owner"]) and row["writer"] == row["owner"][-63:]


def nothing_is_open(seen: Seen) -> Iterator[Violation]:
    """I5. A pause, a question to a person and a full group are causes."""
    for run in seen.runs:
        if run["status"] not in FINAL_RUNS and not _has_cause(seen, run):
            yield Violation("I5", f"run {run['id']}", f"is still {run['status']}")
    waiting = _asked(seen)
    for step in seen.steps:
        if step["status"] not in FINAL_STEPS and step["id"] not in waiting:
            yield Violation("I5", f"step run {step['id']}", f"{step['step']} is still {step['status']}")
    for number, execution in seen.executions.items():
        if execution["status"] not in FINAL_EXECUTIONS:
            yield Violation("I5", f"execution {number}", f"is still {execution['status']}")
    missing = set(seen.numbers) - {run["id"] for run in seen.runs}
    for number in sorted(missing):
        yield Violation("I5", f"run {number}", "was acknowledged and does not exist")


def _has_cause(seen: Seen, run: Row) -> bool:
    if run["paused_at"] is not None:
        return True
    asked = {step["run_id"] for step in seen.steps if step["id"] in _asked(seen)}
    is_full = bool(run["group"]) and run["status"] == "queued" and bool(_open_in(seen, run["group"]))
    return run["id"] in asked or is_full


def _asked(seen: Seen) -> set[int]:
    """Step runs that wait for a person."""
    rows = seen.live.rows("SELECT step_run_id FROM runs_approval WHERE status = 'open'")
    return {row["step_run_id"] for row in rows}


def _open_in(seen: Seen, group: str) -> list[Row]:
    query = "SELECT id FROM runs_run WHERE \"group\" = %s AND status IN ('running', 'waiting', 'paused')"
    return seen.live.rows(query, group)


def nothing_runs_on(seen: Seen) -> Iterator[Violation]:
    """I6."""
    for run in seen.runs:
        events = seen.events(run["id"])
        asked = next((event["seq"] for event in events if event["type"] == "cancel_requested"), None)
        if asked is None:
            continue
        for event in events:
            if event["seq"] > asked and event["type"] in STARTS:
                word = STARTS[event["type"]]
                yield Violation("I6", f"run {run['id']}", f"{event['data'].get('step')} {word} after the cancel")
        yield from _late_starts(seen, run)
        yield from _late_successes(seen, run)
    for key, phase in seen.phases.items():
        status = seen.states.get(int(key)) if key.isdigit() else None
        if phase is Phase.RUNNING and (status is None or status in FINAL_EXECUTIONS):
            yield Violation("I6", f"execution {key}", f"its container runs, though it is {status or 'unknown'}")


def _late_starts(seen: Seen, run: Row) -> Iterator[Violation]:
    limit = run["cancel_requested_at"].timestamp() + CANCEL_SECONDS
    for step in seen.steps_of(run["id"]):
        began = _began(seen, step)
        if began is not None and began > limit:
            late = began - limit + CANCEL_SECONDS
            yield Violation("I6", f"execution {step['execution_id']}", f"began {late:.1f} s after the cancel")


def _late_successes(seen: Seen, run: Row) -> Iterator[Violation]:
    """Steps that succeeded by work that ended after the cancel was stored."""
    for step in seen.steps_of(run["id"]):
        execution = seen.executions.get(step["execution_id"])
        if step["status"] != "succeeded" or execution is None or execution["ended_at"] <= run["cancel_requested_at"]:
            continue
        yield Violation("I6", f"step run {step['id']}", "succeeded by work that ended after the cancel")


def _began(seen: Seen, step: Row) -> float | None:
    """When the step's script began, in seconds of this machine's clock."""
    if step["execution_id"] is None:
        return None
    told = marks(seen.side(step["execution_id"]))
    return next((mark["ms"] / 1000 for mark in told if mark["what"] == "start"), None)


def failures_have_reasons(seen: Seen) -> Iterator[Violation]:
    """I12: of what failed, a reason of the list; of what succeeded, none."""
    for word, rows in (("run", seen.runs), ("step run", seen.steps), ("execution", list(seen.executions.values()))):
        for row in rows:
            status, reason = row["status"], row["reason"]
            if status in {"failed", "cancelled", "killed", "lost"} and reason not in REASONS:
                yield Violation("I12", f"{word} {row['id']}", f"{status} for the reason {reason!r}")
            elif status == "succeeded" and reason:
                yield Violation("I12", f"{word} {row['id']}", f"succeeded for the reason {reason!r}")
            elif reason and reason not in REASONS:
                yield Violation("I12", f"{word} {row['id']}", f"{status} for the unknown reason {reason!r}")
