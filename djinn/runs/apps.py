from __future__ import annotations

from django.apps import AppConfig


class RunsConfig(AppConfig):
    name = "djinn.runs"

    def ready(self) -> None:
        from djinn.events.access import register_rule
        from djinn.runs import workers  # noqa: F401  connects to Celery's signals
        from djinn.runs.selectors import may_read_stream

        register_rule("run", may_read_stream)
