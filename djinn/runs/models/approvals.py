"""Questions to people, and their answers."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models.functions import Now

from djinn.runs.models.run import StepRun
from djinn.runs.states import ApprovalStatus


class Approval(models.Model):
    """A decision that a step run waits for, with exactly what was shown. When that changes, it is void."""

    step_run = models.ForeignKey(StepRun, on_delete=models.CASCADE, related_name="approvals")
    status = models.CharField(max_length=10, choices=ApprovalStatus.choices, default=ApprovalStatus.OPEN)
    question = models.TextField(blank=True, default="")
    shown = models.JSONField(default=dict)
    """outputs by name, and diff, as far as the step shows them."""
    digest = models.CharField(max_length=64)
    """SHA-256 of question, what is shown and what it came from, in hexadecimal."""
    by = models.JSONField(default=list)
    """Who may decide: roles and names."""
    count = models.PositiveIntegerField(default=1)
    """How many different people must agree."""
    asked_at = models.DateTimeField(db_default=Now())
    expires_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-pk"]
        constraints = [
            models.UniqueConstraint(
                fields=["step_run"], condition=models.Q(status=ApprovalStatus.OPEN), name="approval_open_once"
            )
        ]

    def __str__(self) -> str:
        return f"approval {self.pk} ({self.status})"


class Decision(models.Model):
    """What one person decided; nobody decides twice on the same question."""

    class Verdict(models.TextChoices):
        APPROVE = "approve", "Approve"
        REJECT = "reject", "Reject"

    approval = models.ForeignKey(Approval, on_delete=models.CASCADE, related_name="decisions")
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+")
    verdict = models.CharField(max_length=10, choices=Verdict.choices)
    comment = models.TextField(blank=True, default="")
    at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["pk"]
        constraints = [models.UniqueConstraint(fields=["approval", "user"], name="decision_once_a_person")]

    def __str__(self) -> str:
        return f"{self.verdict} on approval {self.approval_id}"
