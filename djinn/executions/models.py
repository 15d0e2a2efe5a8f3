"""The row of one container's life."""

from __future__ import annotations

from django.db import models
from django.db.models.functions import Now

from djinn.executions.states import FINAL, OPEN, ExecutionStatus, Reason


class Execution(models.Model):
    """One container's life, for a step run or, later, a conversation."""

    stream = models.CharField(max_length=100)
    """Where its journal's records are appended."""
    tags = models.JSONField(default=dict)
    """Merged into the data of each of its events, so that a reader knows whose they are."""
    status = models.CharField(max_length=10, choices=ExecutionStatus.choices, default=ExecutionStatus.STARTING)
    reason = models.CharField(max_length=20, choices=Reason.choices, blank=True, default="")
    message = models.TextField(blank=True, default="")

    order = models.JSONField(default=dict)
    """What goes into the brief: mode, agent or script, outputs. Without token and paths."""
    model = models.CharField(max_length=260, blank=True, default="")
    agent = models.CharField(max_length=100, blank=True, default="")
    step = models.CharField(max_length=100, blank=True, default="")
    visit = models.PositiveIntegerField(default=1)

    image = models.CharField(max_length=300)
    image_id = models.CharField(max_length=100, blank=True, default="")
    runner = models.CharField(max_length=20, blank=True, default="")
    network = models.CharField(max_length=10, default="none")
    resources = models.JSONField(default=dict)
    """cpus, memory_mb, pids."""
    timeout_seconds = models.PositiveIntegerField()

    workspace = models.CharField(max_length=100, blank=True, default="")
    """Name of the directory that it shares with the other executions of its run; empty for none."""
    lane = models.CharField(max_length=200, blank=True, default="")
    """Which tree of that directory is its own; empty is the main one."""
    forked_from = models.CharField(max_length=100, blank=True, default="")
    """Name of the directory whose snapshots this one begins with; empty for none."""
    bases = models.JSONField(default=list)
    """Snapshots that are merged into what it begins with; none is what the workspace was at first."""
    budgets = models.JSONField(default=list)
    """Scopes of the budgets that its model calls count in, as far as there are any."""
    artifacts = models.JSONField(default=list)
    """Globs of the files that are kept when it has succeeded."""
    source = models.JSONField(default=dict)
    """repository and ref that the workspace begins with."""
    origin_snapshot = models.CharField(max_length=64, blank=True, default="")
    """What the workspace was when its run began."""
    base_snapshot = models.CharField(max_length=64, blank=True, default="")
    """What the workspace was, or is made to be, when this execution begins."""
    result_snapshot = models.CharField(max_length=64, blank=True, default="")
    diff = models.TextField(blank=True, default="")
    """What this execution changed, as a unified diff, cut at 1 MB."""
    run_diff = models.TextField(blank=True, default="")
    """What its run changed up to here."""
    changes = models.JSONField(default=list)
    """path, change, added, removed of each file that this execution changed."""

    host = models.CharField(max_length=255, blank=True, default="")
    lease_token = models.BigIntegerField(default=0)
    """Fencing token: grows by one with each claim. Every write of a worker names the one it claimed."""
    lease_owner = models.CharField(max_length=255, blank=True, default="")
    lease_expires_at = models.DateTimeField(null=True)
    stop_requested_at = models.DateTimeField(null=True)
    stop_reason = models.CharField(max_length=20, choices=Reason.choices, blank=True, default="")

    journal_offset = models.BigIntegerField(default=0)
    """Bytes of the journal that are in the log."""
    journal_count = models.BigIntegerField(default=0)
    """Number of the last record that is in the log."""
    journal_garbage = models.PositiveIntegerField(default=0)
    """How many lines of it were no records."""
    forged = models.CharField(max_length=300, blank=True, default="", db_default="")
    """What in the journal the runtime cannot have written; empty when there was nothing of that."""
    outcome = models.JSONField(null=True)
    """Data of the journal's record `finished`, once it was read."""
    exit_code = models.IntegerField(null=True)

    created_at = models.DateTimeField(db_default=Now())
    launched_at = models.DateTimeField(null=True)
    """When a start was about to be asked for, the last time; stored before it is. Stays as it is once work began."""
    ready_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)
    collected_at = models.DateTimeField(null=True)
    """When its container and its directory were removed."""
    collect_failed_at = models.DateTimeField(null=True)
    """When that was tried the last time and could not be done."""

    class Meta:
        ordering = ["-pk"]
        indexes = [
            models.Index(
                fields=["lease_expires_at"], condition=models.Q(status__in=sorted(OPEN)), name="execution_open"
            ),
            models.Index(fields=["ended_at"], condition=models.Q(collected_at=None), name="execution_to_collect"),
        ]
        constraints = [
            models.CheckConstraint(
                condition=models.Q(status__in=sorted(FINAL), ended_at__isnull=False)
                | models.Q(status__in=sorted(OPEN), ended_at__isnull=True),
                name="execution_ended_when_final",
            ),
            models.CheckConstraint(
                condition=~models.Q(status=ExecutionStatus.RUNNING) | models.Q(lease_expires_at__isnull=False),
                name="execution_running_has_lease",
            ),
        ]

    def __str__(self) -> str:
        return f"execution {self.pk} ({self.status})"

    @property
    def key(self) -> str:
        """What runners call it."""
        return str(self.pk)

    @property
    def is_final(self) -> bool:
        return self.status in FINAL


class Artifact(models.Model):
    """A file of the workspace that was kept. Its content is in the installation's artifacts, by its digest."""

    execution = models.ForeignKey(Execution, on_delete=models.CASCADE, related_name="kept_files")
    path = models.CharField(max_length=1000)
    """In the workspace, with slashes."""
    size = models.BigIntegerField()
    """Bytes."""
    digest = models.CharField(max_length=64)
    """SHA-256, in hexadecimal."""
    created_at = models.DateTimeField(db_default=Now())

    class Meta:
        ordering = ["pk"]
        constraints = [models.UniqueConstraint(fields=["execution", "path"], name="artifact_path_once")]

    def __str__(self) -> str:
        return self.path
