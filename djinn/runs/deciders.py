"""Who may decide an approval, and what waits for a person."""

from __future__ import annotations

from django.contrib.auth.models import AnonymousUser
from django.db.models import Exists, OuterRef, Q, QuerySet

from djinn.accounts.models import Role, User
from djinn.runs.models import Approval, Decision, Run
from djinn.runs.selectors import LEFT, UNLISTED, runs_seen_by
from djinn.runs.states import RUN_OPEN, ApprovalStatus

OF_STEP = tuple(f"step_run__{name}" for name in LEFT)
LARGE = (*OF_STEP, *(f"step_run__run__{name}" for name in (*UNLISTED, "inputs")))
"""Columns behind an approval that nobody who decides is shown."""
ROLES = (Role.OPERATOR, Role.ADMIN)
"""The words in `by` that are roles; any other is a person's name."""


def may_decide(user: User, approval: Approval) -> bool:
    """Whether the person may decide: by role, by name, and administrators always; nobody whose account is inactive."""
    if not user.is_active:
        return False
    return user.has_role(Role.ADMIN) or not _words_of(user).isdisjoint(approval.by)


def approvals_seen_by(user: User | AnonymousUser) -> QuerySet[Approval]:
    """The approvals of the runs that the person may see, newest first, with their decisions."""
    rows = Approval.objects.filter(step_run__run__in=runs_seen_by(user))
    return rows.select_related("step_run__run").defer(*LARGE).prefetch_related("decisions__user")


def approvals_to_decide(user: User) -> QuerySet[Approval]:
    """The open approvals that the person may decide and has not decided yet."""
    rows = approvals_seen_by(user).filter(status=ApprovalStatus.OPEN)
    if not user.is_active:
        return rows.none()
    if not user.has_role(Role.ADMIN):
        named = Q(pk__in=[])
        for word in _words_of(user):
            named |= Q(by__contains=[word])
        rows = rows.filter(named)
    return rows.exclude(Exists(Decision.objects.filter(approval=OuterRef("pk"), user=user)))


def waiting_in(run: Run) -> list[Approval]:
    """The open approvals of the run and of the pipelines that it uses, the oldest first; a query for each level."""
    level, numbers = [run.pk], [run.pk]
    while level:
        level = list(Run.objects.filter(parent__run__in=level, status__in=RUN_OPEN).values_list("pk", flat=True))
        numbers += level
    rows = Approval.objects.filter(step_run__run__in=numbers, status=ApprovalStatus.OPEN)
    return list(rows.select_related("step_run").defer("shown").order_by("pk"))


def approvals_of(run: Run) -> QuerySet[Approval]:
    """All approvals of the run, newest first, with their decisions."""
    rows = Approval.objects.filter(step_run__run=run)
    return rows.select_related("step_run").defer(*OF_STEP).prefetch_related("decisions__user")


def _words_of(user: User) -> set[str]:
    """What `by` may say for this person to be meant. A name that is also a role's means the role alone."""
    roles = {str(role) for role in ROLES if user.has_role(role)}
    name = user.get_username()
    return roles if name in ROLES else roles | {name}
