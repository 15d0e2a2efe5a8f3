"""Questions to people, as pages show them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from django.http import HttpRequest
from django.shortcuts import get_object_or_404
from django.utils.functional import SimpleLazyObject

from djinn.accounts.models import User
from djinn.dashboard.diffs import Diff, read_diff
from djinn.dashboard.selectors import NamedText
from djinn.dashboard.texts import shown
from djinn.runs.deciders import approvals_of, approvals_seen_by, approvals_to_decide, may_decide
from djinn.runs.models import Approval, Decision, Run
from djinn.runs.states import ApprovalStatus

MOST_SHOWN = 100
MOST_CHARACTERS = 200_000
"""Of each value: people decide on all of it, so far more is shown than in a log."""


@dataclass(frozen=True)
class Asked:
    """A question, with exactly what was shown when it was asked."""

    row: Approval
    question: str
    outputs: Sequence[NamedText]
    diff: Diff | None
    decisions: Sequence[Decision]
    is_theirs: bool
    """Whether it is for the person who looks to decide."""
    has_decided: bool

    @property
    def is_open(self) -> bool:
        return self.row.status == ApprovalStatus.OPEN

    @property
    def may_decide(self) -> bool:
        """Whether the person who looks may decide it now."""
        return self.is_open and self.is_theirs and not self.has_decided

    @property
    def by(self) -> str:
        return " or ".join(map(str, self.row.by))

    @property
    def missing(self) -> int:
        """How many more people must approve."""
        agreed = sum(decision.verdict == Decision.Verdict.APPROVE for decision in self.decisions)
        return max(0, self.row.count - agreed)


@dataclass(frozen=True)
class Inbox:
    """Open questions: those for the person to decide first."""

    mine: Sequence[Asked]
    others: Sequence[Asked]


def find_approval(user: User, pk: int) -> Asked:
    """The question, if the person may see its run; else raises Http404."""
    return _asked(get_object_or_404(approvals_seen_by(user), pk=pk), user)


def inbox_of(user: User) -> Inbox:
    """What waits for people in the runs that the person may see; the newest hundred of each kind."""
    mine = list(approvals_to_decide(user).defer("shown")[:MOST_SHOWN])
    rest = approvals_seen_by(user).filter(status=ApprovalStatus.OPEN).exclude(pk__in=[row.pk for row in mine])
    return Inbox([_brief(row, user) for row in mine], [_brief(row, user) for row in rest.defer("shown")[:MOST_SHOWN]])


def questions_of(run: Run, user: User) -> tuple[list[Asked], list[Asked]]:
    """The run's open questions, and the newest of those that are over."""
    rows = approvals_of(run)
    is_open = rows.filter(status=ApprovalStatus.OPEN).order_by("pk")[:MOST_SHOWN]
    over = rows.exclude(status=ApprovalStatus.OPEN).defer("shown")[:MOST_SHOWN]
    return [_asked(row, user) for row in is_open], [_brief(row, user) for row in over]


def key_of(run: Run) -> str:
    """What changes when the questions of the run do."""
    rows = Approval.objects.filter(step_run__run=run).order_by("pk")
    return " ".join(f"{pk}{status}{said or ''}" for pk, status, said in rows.values_list("pk", "status", "decisions"))


def waiting_count(request: HttpRequest) -> dict[str, Any]:
    """`waiting_count` for templates: how many questions wait for the person who asks."""
    user: Any = getattr(request, "user", None)
    is_known = user is not None and user.is_authenticated
    return {"waiting_count": SimpleLazyObject(lambda: approvals_to_decide(user).count()) if is_known else 0}


def _asked(row: Approval, user: User) -> Asked:
    outputs, diff = row.shown.get("outputs") or {}, row.shown.get("diff")
    return replace(
        _brief(row, user),
        question=shown(row.question, most=MOST_CHARACTERS),
        outputs=[NamedText(shown(name), shown(value, most=MOST_CHARACTERS)) for name, value in outputs.items()],
        diff=None if diff is None else read_diff(str(diff)),
    )


def _brief(row: Approval, user: User) -> Asked:
    """The question without what was shown with it, as lists have it."""
    decisions = list(row.decisions.all())
    has_decided = any(decision.user_id == user.pk for decision in decisions)
    return Asked(row, shown(row.question), [], None, decisions, may_decide(user, row), has_decided)
