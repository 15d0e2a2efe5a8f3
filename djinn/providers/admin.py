from __future__ import annotations

from django.contrib import admin

from djinn.core.admin import ReadOnlyAdmin
from djinn.providers.models import Budget, ModelCall


@admin.register(ModelCall)
class ModelCallAdmin(ReadOnlyAdmin):
    list_display = (
        "pk", "provider", "model", "agent", "status",
        "input_tokens", "output_tokens", "cost_usd", "seconds", "started_at",
    )  # fmt: skip
    list_filter = ("status", "provider", "model", "agent")


@admin.register(Budget)
class BudgetAdmin(ReadOnlyAdmin):
    list_display = (
        "scope", "limit_usd", "used_usd", "held_usd", "limit_tokens", "used_tokens", "held_tokens",
    )  # fmt: skip
    search_fields = ("scope",)
