"""The bill's rows."""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Now


class ModelCall(models.Model):
    """One metered request to a provider."""

    class Status(models.TextChoices):
        OPEN = "open", "Open"
        """Sent; not answered yet, or the gateway died before it was."""
        ANSWERED = "answered", "Answered"
        FAILED = "failed", "Failed"
        """The provider refused or broke off; `error` says how."""
        ABANDONED = "abandoned", "Abandoned"
        """The container went away before the answer was complete."""

    execution = models.BigIntegerField(db_index=True)
    provider = models.CharField(max_length=60)
    model = models.CharField(max_length=200)
    agent = models.CharField(max_length=100, blank=True)
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.OPEN)
    error = models.TextField(blank=True)
    fault = models.CharField(max_length=20, blank=True, db_default="")
    """What kind of failure it was, one of `providers.faults.Fault`."""
    input_tokens = models.PositiveIntegerField(null=True)
    output_tokens = models.PositiveIntegerField(null=True)
    cached_tokens = models.PositiveIntegerField(null=True)
    cost_usd = models.DecimalField(max_digits=14, decimal_places=6, null=True)
    """US dollars. NULL when the price or the usage is unknown, never 0 for that."""
    budgets = models.JSONField(default=list)
    """Scopes of the budgets that it is held in."""
    held_usd = models.DecimalField(max_digits=14, decimal_places=6, default=0)
    """What was held back for it before it was sent, at the most that it could cost."""
    held_tokens = models.BigIntegerField(default=0)
    started_at = models.DateTimeField(db_default=Now())
    seconds = models.FloatField(null=True)
    first_token_seconds = models.FloatField(null=True)

    class Meta:
        ordering = ["-pk"]
        indexes = [models.Index(fields=["execution"], condition=models.Q(status="open"), name="model_call_open")]

    def __str__(self) -> str:
        return f"call {self.pk}: {self.provider}/{self.model} {self.status}"


class Budget(models.Model):
    """What may be spent in one scope, what was, and what is held back for calls that are under way."""

    scope = models.CharField(max_length=100, unique=True)
    """`run-7`."""
    limit_usd = models.DecimalField(max_digits=14, decimal_places=6, null=True)
    limit_tokens = models.BigIntegerField(null=True)
    held_usd = models.DecimalField(max_digits=14, decimal_places=6, default=0)
    held_tokens = models.BigIntegerField(default=0)
    used_usd = models.DecimalField(max_digits=14, decimal_places=6, default=0)
    used_tokens = models.BigIntegerField(default=0)
    is_exhausted = models.BooleanField(default=False)
    """A call has used more than was left: nothing fits any more."""

    class Meta:
        constraints = [
            models.CheckConstraint(
                condition=models.Q(limit_usd=None)
                | models.Q(limit_usd__gte=models.F("used_usd") + models.F("held_usd")),
                name="budget_usd_is_kept",
            ),
            models.CheckConstraint(
                condition=models.Q(limit_tokens=None)
                | models.Q(limit_tokens__gte=models.F("used_tokens") + models.F("held_tokens")),
                name="budget_tokens_are_kept",
            ),
        ]

    def __str__(self) -> str:
        return f"budget of {self.scope}"
