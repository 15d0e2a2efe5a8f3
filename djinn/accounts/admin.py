from __future__ import annotations

from typing import Any

from django.contrib import admin, messages
from django.contrib.auth.admin import UserAdmin
from django.http import HttpRequest

from djinn.accounts.models import ApiToken, User
from djinn.accounts.services import create_token


@admin.register(User)
class PersonAdmin(UserAdmin[User]):
    list_display = ("username", "email", "role", "is_active", "is_superuser", "last_login")
    list_filter = ("role", "is_active")
    fieldsets = (*(UserAdmin.fieldsets or ()), ("Djinn", {"fields": ("role",)}))


@admin.register(ApiToken)
class ApiTokenAdmin(admin.ModelAdmin[ApiToken]):
    list_display = ("name", "user", "created_at", "expires_at", "last_used_at")
    readonly_fields = ("created_at", "last_used_at")

    def save_model(self, request: HttpRequest, obj: ApiToken, form: Any, change: bool) -> None:
        """A new token's key is shown once, in a message."""
        if change:
            super().save_model(request, obj, form, change)
            return
        token, key = create_token(user=obj.user, name=obj.name, expires_at=obj.expires_at)
        obj.pk, obj.key_hash = token.pk, token.key_hash
        messages.warning(request, f"The key, shown only now: {key}")
