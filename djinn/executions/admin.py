from __future__ import annotations

from django.contrib import admin

from djinn.core.admin import ReadOnlyAdmin
from djinn.executions.models import Artifact, Execution


@admin.register(Execution)
class ExecutionAdmin(ReadOnlyAdmin):
    list_display = (
        "pk", "stream", "step", "visit", "status", "reason", "host", "runner", "lease_token", "created_at", "ended_at",
    )  # fmt: skip
    list_filter = ("status", "reason", "runner", "host")
    search_fields = ("stream", "step")


@admin.register(Artifact)
class ArtifactAdmin(ReadOnlyAdmin):
    list_display = ("pk", "execution", "path", "size", "digest", "created_at")
    search_fields = ("path", "digest")
    list_select_related = ("execution",)
