"""What can be done with a run as it is now."""

from __future__ import annotations

from djinn.accounts.models import Role, User
from djinn.runs.models import Run
from djinn.runs.states import RUN_OPEN, RunStatus, StepStatus

VERBS = ("pause", "resume", "note", "retry", "rerun", "restart", "cancel")


def offers_of(run: Run) -> list[str]:
    """The verbs that make sense in the run's present state, in the order in which they are offered."""
    found = _on_open(run) if not run.is_final else {"restart"}
    is_part = run.parent_id is not None
    if run.is_final and run.status != RunStatus.SUCCEEDED:
        found |= {"retry"} if not run.continuations.filter(status__in=RUN_OPEN).exists() else set()
    if run.cancel_requested_at is None or run.is_final:
        found |= {"rerun"} if run.step_runs.exclude(status=StepStatus.SKIPPED).exists() else set()
    if is_part:  # only the run around it can be gone on from
        found -= {"retry", "rerun", "restart"}
    return [verb for verb in VERBS if verb in found]


def offers_to(user: User, run: Run) -> list[str]:
    """The verbs that the person may use now."""
    return offers_of(run) if user.has_role(Role.OPERATOR) else []


def _on_open(run: Run) -> set[str]:
    if run.cancel_requested_at is not None:
        return set()
    return {"cancel", "resume" if run.paused_at else "pause"} | ({"note"} if run.agents else set())
