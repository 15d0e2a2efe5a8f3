"""The rows of pipelines in motion."""

from __future__ import annotations

from django.conf import settings
from django.db import models
from django.db.models.functions import Now

from djinn.executions.models import Execution
from djinn.executions.states import Reason
from djinn.runs.states import RUN_FINAL, RUN_OPEN, STEP_FINAL, STEP_OPEN, RunStatus, StepStatus


class Run(models.Model):
    """One pipeline in motion, with everything that it started with."""

    pipeline = models.CharField(max_length=100)
    definition = models.JSONField()
    """The pipeline's snapshot: the run keeps what it started with, whatever happens to the file."""
    digest = models.CharField(max_length=64)
    """SHA-256 of the definition, in hexadecimal."""
    agents = models.JSONField(default=dict)
    """The agents of its steps as they were at the start, by folder."""
    inputs = models.JSONField(default=dict)
    model = models.CharField(max_length=260, blank=True, default="")
    """`provider/model` that all its agents use instead of their own; empty for none."""
    status = models.CharField(max_length=10, choices=RunStatus.choices, default=RunStatus.QUEUED)
    reason = models.CharField(max_length=20, choices=Reason.choices, blank=True, default="")
    message = models.TextField(blank=True, default="")
    created_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="runs", null=True)
    """Who started it; null for the command line."""
    idempotency_key = models.CharField(max_length=200, null=True, editable=False)
    key_space = models.CharField(max_length=20, blank=True, default="", db_default="", editable=False)
    """Who chooses such keys: people, or `schedule`."""
    request_digest = models.CharField(max_length=64, blank=True, default="", db_default="", editable=False)
    """SHA-256 of what was asked under the key, in hexadecimal; empty without a key."""
    cancel_requested_at = models.DateTimeField(null=True)
    cancelled_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+", null=True)
    paused_at = models.DateTimeField(null=True)
    """Since when nothing new may start; null when it may."""
    paused_by = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.PROTECT, related_name="+", null=True)
    priority = models.SmallIntegerField(default=0)
    """From -100 to 100; what waits gains one a minute."""
    group = models.CharField(max_length=200, blank=True, default="")
    """Its concurrency group; empty for none."""
    group_limit = models.PositiveIntegerField(default=1)
    host = models.CharField(max_length=255, blank=True, default="")
    """Where its workspace is; set by the first worker that claims one of its executions."""
    parent = models.OneToOneField("runs.StepRun", on_delete=models.PROTECT, related_name="child", null=True)
    """The step run that this run is the work of, when a pipeline uses another one."""
    depth = models.PositiveSmallIntegerField(default=0)
    """How many parents are above it."""
    continues = models.ForeignKey("self", on_delete=models.PROTECT, related_name="continuations", null=True)
    """The run whose earlier results it goes on with."""
    schedule = models.ForeignKey("runs.Schedule", on_delete=models.SET_NULL, related_name="runs", null=True)
    created_at = models.DateTimeField(db_default=Now())
    started_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-pk"]
        indexes = [
            models.Index(fields=["pipeline", "id"], name="run_of_pipeline"),
            models.Index(fields=["status", "id"], name="run_of_status"),
            models.Index(fields=["created_by", "id"], name="run_of_person"),
            models.Index(fields=["schedule", "id"], name="run_of_schedule"),
            models.Index(fields=["id"], condition=models.Q(status__in=sorted(RUN_OPEN)), name="run_open"),
            models.Index(
                fields=["id"],
                condition=models.Q(ended_at=None)
                & (models.Q(paused_at__isnull=False) | models.Q(cancel_requested_at__isnull=False)),
                name="run_held",
            ),
            models.Index(
                fields=["group"],
                condition=models.Q(status__in=sorted(RUN_OPEN)) & ~models.Q(group=""),
                name="run_open_in_group",
            ),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["created_by", "key_space", "idempotency_key"], name="run_started_once_a_space"
            ),
            models.CheckConstraint(
                condition=models.Q(status__in=sorted(RUN_FINAL), ended_at__isnull=False)
                | models.Q(status__in=sorted(RUN_OPEN), ended_at__isnull=True),
                name="run_ended_when_final",
            ),
        ]

    def __str__(self) -> str:
        return f"run {self.pk} of {self.pipeline}"

    @property
    def stream(self) -> str:
        return f"run-{self.pk}"

    @property
    def is_final(self) -> bool:
        return self.status in RUN_FINAL


class StepRun(models.Model):
    """One try of one step."""

    run = models.ForeignKey(Run, on_delete=models.CASCADE, related_name="step_runs")
    number = models.PositiveIntegerField()
    """1, 2, 3 ... in the order of creation within the run."""
    step = models.CharField(max_length=100)
    item = models.CharField(max_length=100, blank=True, default="")
    """Index of the item that it is for, from 0, nested ones with dots (`2.0`); empty for none."""
    item_value = models.JSONField(null=True)
    visit = models.PositiveIntegerField()
    """How often the flow has come to this step; a retry stays in its visit."""
    attempt = models.PositiveIntegerField()
    because = models.CharField(max_length=300, blank=True, default="")
    """Why it was created."""
    status = models.CharField(max_length=10, choices=StepStatus.choices, default=StepStatus.QUEUED)
    reason = models.CharField(max_length=20, choices=Reason.choices, blank=True, default="")
    message = models.TextField(blank=True, default="")
    outputs = models.JSONField(default=dict)
    summary = models.TextField(blank=True, default="")
    execution = models.OneToOneField(Execution, on_delete=models.PROTECT, related_name="step_run", null=True)
    bases = models.JSONField(default=list)
    """Numbers of the step runs whose files it begins with."""
    lane = models.CharField(max_length=200, blank=True, default="")
    """Which of the run's trees it works in; empty is the main one."""
    snapshot = models.CharField(max_length=64, blank=True, default="")
    """What its workspace was when it had ended."""
    reused_from = models.ForeignKey("self", on_delete=models.PROTECT, related_name="reuses", null=True)
    """The step run of an earlier run whose result stands here; nothing was computed again."""
    crashes = models.PositiveIntegerField(default=0)
    """How often the engine itself failed on this row."""
    not_before = models.DateTimeField(null=True)
    """When a retry may begin."""
    queued_at = models.DateTimeField(db_default=Now())
    started_at = models.DateTimeField(null=True)
    ended_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["run", "number"]
        indexes = [models.Index(fields=["run"], condition=models.Q(status__in=sorted(STEP_OPEN)), name="step_run_open")]
        constraints = [
            models.UniqueConstraint(fields=["run", "number"], name="step_run_number_once"),
            models.UniqueConstraint(fields=["run", "step", "item", "visit", "attempt"], name="step_run_try_once"),
            models.CheckConstraint(
                condition=models.Q(status__in=sorted(STEP_FINAL), ended_at__isnull=False)
                | models.Q(status__in=sorted(STEP_OPEN), ended_at__isnull=True),
                name="step_run_ended_when_final",
            ),
        ]

    def __str__(self) -> str:
        item = f"[{self.item}]" if self.item else ""
        return f"{self.step}{item} ({self.visit}.{self.attempt}) of run {self.run_id}"

    @property
    def is_final(self) -> bool:
        return self.status in STEP_FINAL
