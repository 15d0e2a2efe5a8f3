"""What people and agents have said to a run."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models.functions import Now

from djinn.runs.models.run import Run, StepRun


class Intent(models.Model):
    """What somebody wanted of a run. Stored first; whoever can applies it."""

    class Verb(models.TextChoices):
        CANCEL = "cancel", "Cancel"
        PAUSE = "pause", "Pause"
        RESUME = "resume", "Resume"
        RETRY = "retry", "Retry"
        RERUN = "rerun", "Re-run"
        RESTART = "restart", "Restart"
        INJECT = "inject", "Add context"

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="intents")
    verb = models.CharField(max_length=10, choices=Verb.choices)
    by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+", null=True)
    """Null for the command line, and for what Djinn itself wanted."""
    at = models.DateTimeField(db_default=Now())
    details = models.JSONField(default=dict)

    class Meta:
        ordering = ["pk"]

    def __str__(self) -> str:
        return f"{self.verb} of run {self.run_id}"


class Note(models.Model):
    """Text that goes into prompts: of the step `step` that has not started, or of the agent `agent`, once."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="notes")
    step = models.CharField(max_length=100, blank=True, default="")
    agent = models.CharField(max_length=100, blank=True, default="")
    text = models.TextField()
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+", null=True)
    """Null when a step's `notify` wrote it."""
    source = models.ForeignKey(StepRun, on_delete=models.CASCADE, related_name="+", null=True)
    """The step run whose result sent it."""
    created_at = models.DateTimeField(db_default=Now())
    read_by = models.ForeignKey(StepRun, on_delete=models.CASCADE, related_name="notes_read", null=True)
    """The first step run whose prompt holds it; its retries hold it too."""

    class Meta:
        ordering = ["pk"]
        constraints = [
            models.CheckConstraint(condition=models.Q(step="") ^ models.Q(agent=""), name="note_to_a_step_or_an_agent")
        ]

    def __str__(self) -> str:
        return f"note to {self.step or self.agent} in run {self.run_id}"
