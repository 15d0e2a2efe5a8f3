from __future__ import annotations

from django.apps import AppConfig


class ApiConfig(AppConfig):
    name = "djinn.api"

    def ready(self) -> None:
        from djinn.api import schema  # noqa: F401  registers its extension
