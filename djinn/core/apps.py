from __future__ import annotations

from django.apps import AppConfig


class CoreConfig(AppConfig):
    name = "djinn.core"

    def ready(self) -> None:
        from djinn.core import (
            checks,  # noqa: F401  registers them
            workers,  # noqa: F401  connects to Celery's signals
        )
