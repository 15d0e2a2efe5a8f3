from __future__ import annotations

from django.contrib import admin

from djinn.core.admin import ReadOnlyAdmin
from djinn.runs.models import Approval, Decision, Intent, Note, Run, Schedule, StepRun


@admin.register(Run)
class RunAdmin(ReadOnlyAdmin):
    list_display = ("pk", "pipeline", "status", "reason", "created_by", "created_at", "started_at", "ended_at")
    list_filter = ("status", "pipeline", "reason")
    list_select_related = ("created_by",)


@admin.register(StepRun)
class StepRunAdmin(ReadOnlyAdmin):
    list_display = ("pk", "run", "number", "step", "visit", "attempt", "status", "reason", "started_at", "ended_at")
    list_filter = ("status", "reason", "step")
    list_select_related = ("run",)


@admin.register(Schedule)
class ScheduleAdmin(ReadOnlyAdmin):
    list_display = ("name", "pipeline", "cron", "timezone", "overlap", "is_enabled", "created_by", "last_message")
    list_filter = ("is_enabled", "overlap", "pipeline")
    list_select_related = ("created_by",)


@admin.register(Approval)
class ApprovalAdmin(ReadOnlyAdmin):
    list_display = ("pk", "step_run", "status", "by", "count", "asked_at", "expires_at", "ended_at")
    list_filter = ("status",)
    list_select_related = ("step_run__run",)


@admin.register(Decision)
class DecisionAdmin(ReadOnlyAdmin):
    list_display = ("pk", "approval", "user", "verdict", "at")
    list_filter = ("verdict", "user")
    list_select_related = ("approval", "user")


@admin.register(Intent)
class IntentAdmin(ReadOnlyAdmin):
    list_display = ("pk", "run", "verb", "by", "at", "details")
    list_filter = ("verb", "by")
    list_select_related = ("run", "by")


@admin.register(Note)
class NoteAdmin(ReadOnlyAdmin):
    list_display = ("pk", "run", "step", "agent", "created_by", "created_at", "read_by")
    list_select_related = ("run", "created_by", "read_by__run")
