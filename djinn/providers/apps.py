from __future__ import annotations

from django.apps import AppConfig


class ProvidersConfig(AppConfig):
    name = "djinn.providers"

    def ready(self) -> None:
        from djinn.core.installation.environment import register_keys
        from djinn.providers.catalogue import keys_of

        register_keys(keys_of)
