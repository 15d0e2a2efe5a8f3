"""Approvals: asking people, taking their decisions, and declaring void what they can no longer decide on.

Each is done in a turn of the run. Locks are taken in one order: run, step run, approval, and last the stream.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

from django.db.models import DurationField, Value

from djinn.accounts.models import User
from djinn.core.errors import Conflict, Forbidden, NotFound, UserError
from djinn.core.transition import transition
from djinn.executions.lease import DatabaseClock
from djinn.pipelines.schema import Approve, Step
from djinn.runs.deciders import may_decide
from djinn.runs.dispatch import ring_advance
from djinn.runs.models import Approval, Decision, Run, StepRun
from djinn.runs.orders import names_of
from djinn.runs.questions import Question, question_of
from djinn.runs.selectors import runs_seen_by
from djinn.runs.states import APPROVAL_MOVES, RUN_OPEN, ApprovalStatus, StepStatus
from djinn.runs.turn import Turn, tags, turn_of

JSON = Any
LONGEST_COMMENT = 4000
LONGEST_TOLD = 1000
AT_ONCE = 200
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
_ENDS = {Decision.Verdict.APPROVE: ApprovalStatus.APPROVED, Decision.Verdict.REJECT: ApprovalStatus.REJECTED}


@dataclass(frozen=True)
class Verdict:
    """What came of a question: `comment` is what was said, `by` who decided so."""

    status: Literal["approved", "rejected", "expired"]
    comment: str = ""
    by: tuple[str, ...] = ()


def ask(turn: Turn, step_run: StepRun, step: Step, names: Mapping[str, JSON]) -> Approval:
    """Ask the step's question about what the rows hold now; `names` are those of `orders.names_of`.

    Raises `UserError` when the question's template cannot be filled in.
    """
    return _open(turn, step_run, step.approve or Approve(), question_of(step_run, step, names))


def decide(
    *,
    user: User,
    verdict: str,
    digest: str,
    comment: str = "",
    approval_id: int | None = None,
    run: Run | None = None,
    step: str = "",
) -> Approval:
    """Store the person's verdict, `approve` or `reject`, on the approval, or on the open one of `step` in `run`.

    `digest` is that of the question that the person saw. Raises `NotFound` when they may not see the run, `Forbidden`
    when they may not decide, and `Conflict` when the approval is no longer open, they have decided already, or what
    they saw has changed; in the last case the old question is void and a new one stands in its place.
    """
    if verdict not in Decision.Verdict.values:
        raise UserError(f"{verdict!r} is no verdict.", details={"verdict": "approve or reject"})
    if len(comment) > LONGEST_COMMENT or _UNSTORABLE.search(comment):
        raise UserError("The comment cannot be stored.", details={"comment": f"at most {LONGEST_COMMENT} characters"})
    found = _find(user, approval_id, run, step)
    if not may_decide(user, found):
        raise Forbidden(f"This is for {', '.join(map(str, found.by))} to decide.")
    with turn_of(found.step_run.run_id) as turn:  # a refusal must not roll back what it has found out
        refusal = _decide(turn, found, user, Decision.Verdict(verdict), digest, comment)
    if refusal is not None:
        raise refusal
    return Approval.objects.get(pk=found.pk)


def verdict_of(step_run: StepRun) -> Verdict | None:
    """What people decided on the step run's question; None while they have not."""
    approval = step_run.approvals.exclude(status=ApprovalStatus.VOID).first()
    if approval is None or approval.status == ApprovalStatus.OPEN:
        return None
    if approval.status == ApprovalStatus.EXPIRED:
        return Verdict("expired")
    is_approved = approval.status == ApprovalStatus.APPROVED
    wanted = Decision.Verdict.APPROVE if is_approved else Decision.Verdict.REJECT
    decisions = list(approval.decisions.filter(verdict=wanted).select_related("user"))
    comments = [(row.user.get_username(), row.comment) for row in decisions if row.comment]
    comment = comments[0][1] if len(comments) == 1 else "\n".join(f"{name}: {text}" for name, text in comments)
    by = tuple(row.user.get_username() for row in decisions)
    return Verdict("approved" if is_approved else "rejected", comment, by)


def void_open(step_run: StepRun, why: str, *, turn: Turn) -> bool:
    """Declare the step run's open question void; whether there was one."""
    rows = Approval.objects.select_for_update(of=("self",)).select_related("step_run")
    approval = rows.filter(step_run=step_run, status=ApprovalStatus.OPEN).first()
    return approval is not None and _void(turn, approval, why)


def expire_due() -> int:
    """End the questions whose time has passed by the database's clock; how many. Passes over a run that is locked."""
    due = Approval.objects.filter(status=ApprovalStatus.OPEN, expires_at__lte=DatabaseClock())
    runs = due.order_by("pk").values_list("step_run__run_id", flat=True)[:AT_ONCE]
    return sum(_expire_in(run_id) for run_id in sorted(set(runs)))


def ring_decided() -> int:
    """Ring for runs whose question was answered while the message about that was lost; how many."""
    rows = StepRun.objects.filter(status=StepStatus.WAITING, run__status__in=RUN_OPEN, approvals__isnull=False)
    rows = rows.exclude(approvals__status=ApprovalStatus.OPEN)
    runs = sorted(set(rows.values_list("run_id", flat=True)[:AT_ONCE]))
    for run_id in runs:
        ring_advance(run_id)
    return len(runs)


def _find(user: User, approval_id: int | None, run: Run | None, step: str) -> Approval:
    rows = Approval.objects.filter(step_run__run__in=runs_seen_by(user)).select_related("step_run")
    if approval_id is not None:
        approval = rows.filter(pk=approval_id).first()
        if approval is None:
            raise NotFound(f"There is no approval {approval_id}.")
        return approval
    found = list(rows.filter(step_run__run=run, step_run__step=step, status=ApprovalStatus.OPEN)[:2])
    if not found:
        raise NotFound(f"Step {step!r} does not wait for a decision.")
    if len(found) > 1:
        raise UserError(f"Step {step!r} waits for several decisions: name the approval.")
    return found[0]


def _decide(
    turn: Turn | None, found: Approval, user: User, verdict: Decision.Verdict, digest: str, comment: str
) -> Conflict | None:
    """Store the verdict; the refusal when it cannot be taken. Raises only what has changed nothing."""
    if turn is None:
        return Conflict("The run has ended: it no longer asks this.")
    step_run = StepRun.objects.select_for_update(of=("self",)).get(pk=found.step_run_id)
    approval = Approval.objects.select_for_update(of=("self",)).get(pk=found.pk)
    step_run.run, approval.step_run = turn.run, step_run
    _refuse_closed(approval, user)
    if digest != approval.digest:
        raise Conflict("What you saw has changed: look at the question again.")
    if refusal := _ask_anew_when_changed(turn, approval):
        return refusal
    Decision.objects.create(approval=approval, user=user, verdict=verdict, comment=comment)
    _count(turn, approval, verdict, by=user.get_username(), comment=comment)
    ring_advance(turn.run.pk)
    return None


def _count(turn: Turn, approval: Approval, verdict: Decision.Verdict, **said: str) -> None:
    """End the question when that is enough, and tell who said what."""
    agreed = approval.decisions.filter(verdict=Decision.Verdict.APPROVE).count()
    if verdict == Decision.Verdict.REJECT or agreed >= approval.count:
        transition(approval, _ENDS[verdict], moves=APPROVAL_MOVES, ended_at=DatabaseClock())
    result = {"verdict": str(verdict), "status": str(approval.status), "agreed": agreed, "count": approval.count}
    turn.tell("approval_decided", **_tags(approval), **said, **result)


def _refuse_closed(approval: Approval, user: User) -> None:
    """Raise `Conflict` when nothing can be decided any more."""
    step_run = approval.step_run
    if approval.decisions.filter(user=user).exists():
        raise Conflict("You already decided this.")
    if approval.status == ApprovalStatus.VOID:
        raise Conflict("This question is void: what it showed has changed, or the run no longer asks.")
    if approval.status != ApprovalStatus.OPEN:
        raise Conflict(f"This was decided already: {approval.get_status_display().lower()}.")
    if Approval.objects.filter(pk=approval.pk, expires_at__lte=DatabaseClock()).exists():
        raise Conflict("The time to decide has passed.")
    if step_run.status != StepStatus.WAITING or step_run.run.cancel_requested_at is not None:
        raise Conflict("The run no longer asks this.")


def _ask_anew_when_changed(turn: Turn, approval: Approval) -> Conflict | None:
    """When the rows no longer give what was shown: the question is void, a new one is asked, and this is refused."""
    step_run, step = approval.step_run, turn.step_of(approval.step_run)
    now = question_of(step_run, step, names_of(step_run, turn.pipeline, turn.history))
    if now.digest == approval.digest:
        return None
    shown, before = {**now.shown, "question": now.text}, {**approval.shown, "question": approval.question}
    changed = sorted(name for name in {*shown, *before} if shown.get(name) != before.get(name))
    _void(turn, approval, f"changed since it was asked: {', '.join(changed) or 'what it stands on'}")
    fresh = _open(turn, step_run, step.approve or Approve(), now)
    return Conflict(f"What you saw has changed: approval {fresh.pk} asks again.", details={"approval": str(fresh.pk)})


def _open(turn: Turn, step_run: StepRun, approve: Approve, question: Question) -> Approval:
    lifetime = timedelta(seconds=approve.expires_seconds or 0)
    approval = Approval.objects.create(
        step_run=step_run,
        question=question.text,
        shown=question.shown,
        digest=question.digest,
        by=list(approve.by),
        count=approve.count,
        expires_at=DatabaseClock() + Value(lifetime, output_field=DurationField()) if lifetime else None,
    )
    approval.refresh_from_db(fields=["asked_at", "expires_at"])
    told = {"question": question.text[:LONGEST_TOLD], "digest": question.digest, "by": approval.by}
    until = approval.expires_at.isoformat() if approval.expires_at else None
    turn.tell("approval_asked", **_tags(approval), **told, count=approval.count, expires_at=until)
    return approval


def _void(turn: Turn, approval: Approval, why: str) -> bool:
    is_moved = transition(approval, ApprovalStatus.VOID, moves=APPROVAL_MOVES, ended_at=DatabaseClock())
    if is_moved:
        turn.tell("approval_void", **_tags(approval), because=why)
    return is_moved


def _expire_in(run_id: int) -> int:
    with turn_of(run_id, is_patient=False) as turn:
        if turn is None:
            return 0
        rows = Approval.objects.select_for_update(of=("self",)).select_related("step_run").order_by("pk")
        due = rows.filter(step_run__run=run_id, status=ApprovalStatus.OPEN, expires_at__lte=DatabaseClock())
        return sum(_expire(turn, approval) for approval in due)


def _expire(turn: Turn, approval: Approval) -> bool:
    is_moved = transition(approval, ApprovalStatus.EXPIRED, moves=APPROVAL_MOVES, ended_at=DatabaseClock())
    if is_moved:
        turn.tell("approval_expired", **_tags(approval))
        ring_advance(turn.run.pk)
    return is_moved


def _tags(approval: Approval) -> dict[str, JSON]:
    """What tells a reader of an event which approval of which step run it is about."""
    return {**tags(approval.step_run), "approval": approval.pk}
