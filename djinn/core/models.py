"""What every process may have to know."""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Now


class WorkerBeat(models.Model):
    """When a worker last ran a canary task: beat, broker, worker and database work together up to there."""

    class Kind(models.TextChoices):
        CONTROL = "control", "Control"
        """Decides what comes next."""
        AGENTS = "agents", "Agents"
        """Runs containers."""

    worker = models.CharField(max_length=255)
    """Celery's name of the process, such as `agents@host`; it outlives a restart."""
    kind = models.CharField(max_length=10, choices=Kind.choices)
    host = models.CharField(max_length=255)
    ran_at = models.DateTimeField(db_default=Now())
    isolates = models.BooleanField(db_default=True)
    """False for an agents worker whose steps run as plain processes of its machine."""

    class Meta:
        ordering = ["kind", "host", "worker"]
        constraints = [models.UniqueConstraint(fields=["worker", "kind"], name="worker_beat_once")]

    def __str__(self) -> str:
        return f"{self.kind} worker {self.worker}"
