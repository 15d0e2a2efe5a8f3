"""The gateway's ASGI application, served on Unix sockets by `djinn.core.serving`."""

from __future__ import annotations

import os

os.environ["DJANGO_SETTINGS_MODULE"] = "djinn.gateway.settings"

from django.core.asgi import get_asgi_application

from djinn.core.body import bounded
from djinn.core.installation.environment import hide_environment

LARGEST_BODY = 32 * 1024 * 1024

hide_environment()  # it holds the providers' keys
django = get_asgi_application()

from djinn.gateway.fair import Fairness  # noqa: E402  below Django, as everything of the gateway

application = Fairness().around(bounded(django, max_bytes=LARGEST_BODY))
