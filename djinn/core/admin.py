"""What our admin pages share."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.db.models import Model
from django.http import HttpRequest

from djinn.core.models import WorkerBeat


class ReadOnlyAdmin(admin.ModelAdmin[Model]):
    """A page on which rows are looked at: they are written by the engine alone, through guarded moves."""

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False


@admin.register(WorkerBeat)
class WorkerBeatAdmin(ReadOnlyAdmin):
    list_display = ("worker", "kind", "host", "ran_at")
    list_filter = ("kind", "host")
