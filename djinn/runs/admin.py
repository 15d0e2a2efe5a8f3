from __future__ import annotations

from django.contrib import admin

from djinn.core.admin import ReadOnlyAdmin
from djinn.runs.models import Run, Schedule, StepRun


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
