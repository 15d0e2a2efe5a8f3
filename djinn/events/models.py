"""The log's two tables."""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Now


class Stream(models.Model):
    """An ordered series of events. Its row is the lock under which sequence numbers are given out."""

    name = models.CharField(max_length=100, unique=True)
    last_seq = models.BigIntegerField(default=0)

    def __str__(self) -> str:
        return self.name


class Event(models.Model):
    """Something that happened. Never changed (a trigger refuses it) and never renumbered."""

    stream = models.ForeignKey(Stream, on_delete=models.CASCADE, related_name="events")
    seq = models.BigIntegerField()
    """1, 2, 3 ... within the stream, in the order of commits."""
    type = models.CharField(max_length=40)
    data = models.JSONField(default=dict)
    at = models.DateTimeField(db_default=Now())
    """When it was appended, by the database's clock."""
    happened_at = models.DateTimeField(null=True)
    """When it happened, for what a journal tells: it is read a while later. Null where it is `at`."""
    execution = models.BigIntegerField(null=True)
    """The execution whose journal this came from; null for what the engine itself did."""
    offset = models.BigIntegerField(null=True)
    """The first byte of the record in that journal."""

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["stream", "seq"], name="event_seq_once"),
            models.UniqueConstraint(
                fields=["execution", "offset"],
                condition=models.Q(execution__isnull=False),
                name="event_journal_record_once",
            ),
            models.CheckConstraint(
                condition=models.Q(execution__isnull=True, offset__isnull=True)
                | models.Q(execution__isnull=False, offset__isnull=False),
                name="event_has_whole_source",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.stream_id}:{self.seq} {self.type}"
