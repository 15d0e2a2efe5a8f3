from __future__ import annotations

from datetime import datetime
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.contrib.auth.admin import UserAdmin
from django.http import HttpRequest
from django.utils import timezone

from djinn.accounts.models import ApiToken, Brake, User
from djinn.accounts.services import create_token
from djinn.core.admin import ReadOnlyAdmin


@admin.register(User)
class PersonAdmin(UserAdmin[User]):
    list_display = ("username", "email", "role", "is_active", "is_superuser", "last_login")
    list_filter = ("role", "is_active")
    add_fieldsets = (*UserAdmin.add_fieldsets, ("Djinn", {"fields": ("role",)}))
    fieldsets = (*(UserAdmin.fieldsets or ()), ("Djinn", {"fields": ("role",)}))


class ApiTokenForm(forms.ModelForm[ApiToken]):
    """Of a new token; its key is made by the service."""

    def clean_expires_at(self) -> datetime | None:
        expires_at: datetime | None = self.cleaned_data["expires_at"]
        if expires_at is not None and expires_at <= timezone.now():
            raise forms.ValidationError("The expiry lies in the past.")
        return expires_at


@admin.register(ApiToken)
class ApiTokenAdmin(admin.ModelAdmin[ApiToken]):
    list_display = ("name", "user", "created_at", "expires_at", "last_used_at")
    form = ApiTokenForm
    readonly_fields = ("created_at", "last_used_at")

    def get_readonly_fields(self, request: HttpRequest, obj: ApiToken | None = None) -> tuple[str, ...]:
        """A token never changes hands: whoever holds its key would act as somebody else."""
        return (*self.readonly_fields, *(("user",) if obj else ()))

    def save_model(self, request: HttpRequest, obj: ApiToken, form: Any, change: bool) -> None:
        """A new token's key is shown once, in a message."""
        if change:
            super().save_model(request, obj, form, change)
            return
        token, key = create_token(user=obj.user, name=obj.name, expires_at=obj.expires_at)
        obj.pk, obj.key_hash = token.pk, token.key_hash
        messages.warning(request, f"The key, shown only now: {key}")


@admin.register(Brake)
class BrakeAdmin(ReadOnlyAdmin):
    """Deleting a row lets its account or network try again at once."""

    list_display = ("subject", "failures", "failed_at", "blocked_until")

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return admin.ModelAdmin.has_delete_permission(self, request, obj)
