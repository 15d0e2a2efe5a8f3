from __future__ import annotations

from django.contrib import admin

from djinn.core.admin import ReadOnlyAdmin
from djinn.events.models import Event, Stream


@admin.register(Stream)
class StreamAdmin(ReadOnlyAdmin):
    list_display = ("name", "last_seq")
    search_fields = ("name",)


@admin.register(Event)
class EventAdmin(ReadOnlyAdmin):
    list_display = ("stream", "seq", "type", "at", "execution")
    list_filter = ("type",)
    list_select_related = ("stream",)
    search_fields = ("stream__name",)
    ordering = ("-pk",)
    show_full_result_count = False
