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
    input_tokens = models.PositiveIntegerField(null=True)
    output_tokens = models.PositiveIntegerField(null=True)
    cached_tokens = models.PositiveIntegerField(null=True)
    cost_usd = models.DecimalField(max_digits=14, decimal_places=6, null=True)
    """US dollars. NULL when the price or the usage is unknown, never 0 for that."""
    started_at = models.DateTimeField(db_default=Now())
    seconds = models.FloatField(null=True)
    first_token_seconds = models.FloatField(null=True)

    class Meta:
        ordering = ["-pk"]

    def __str__(self) -> str:
        return f"call {self.pk}: {self.provider}/{self.model} {self.status}"
