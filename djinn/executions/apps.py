from __future__ import annotations

from django.apps import AppConfig


class ExecutionsConfig(AppConfig):
    name = "djinn.executions"

    def ready(self) -> None:
        from djinn.core.liveness import register_busy_hosts, register_isolation
        from djinn.executions import checks  # noqa: F401 (registers itself)
        from djinn.executions.lease import hosts_holding
        from djinn.executions.places import present_runner

        register_busy_hosts(hosts_holding)
        register_isolation(lambda: present_runner().isolates)
