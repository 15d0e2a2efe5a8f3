"""Runs that start by the clock."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models.functions import Now


class Schedule(models.Model):
    """A pipeline that is started at set times; django-celery-beat keeps the clock."""

    class Overlap(models.TextChoices):
        SKIP = "skip", "Skip"
        """Start nothing while a run of this schedule is open."""
        QUEUE = "queue", "Queue"
        """Start one all the same."""
        CANCEL = "cancel", "Cancel"
        """Cancel the open ones, then start."""

    name = models.CharField(max_length=100, unique=True)
    pipeline = models.CharField(max_length=100)
    inputs = models.JSONField(default=dict)
    model = models.CharField(max_length=260, blank=True, default="")
    cron = models.CharField(max_length=200)
    """minute hour day-of-month month day-of-week, as crontab(5) has them."""
    timezone = models.CharField(max_length=64, default="UTC")
    """A name of the IANA time zone database."""
    overlap = models.CharField(max_length=10, choices=Overlap.choices, default=Overlap.SKIP)
    is_enabled = models.BooleanField(default=True)
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="schedules")
    """Whose runs they are."""
    entry = models.OneToOneField(
        "django_celery_beat.PeriodicTask", on_delete=models.PROTECT, related_name="+", editable=False
    )
    """Without a way back: it would be called `schedule`, which beat reads."""
    last_message = models.TextField(blank=True, default="", editable=False)
    """Why the last start came to nothing; empty when it did not."""
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name
