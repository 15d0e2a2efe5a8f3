"""The gateway's ASGI application, served by uvicorn on a Unix socket."""

from __future__ import annotations

import os

os.environ["DJANGO_SETTINGS_MODULE"] = "djinn.gateway.settings"

from django.core.asgi import get_asgi_application

from djinn.core.body import bounded
from djinn.core.installation.environment import hide_environment

LARGEST_BODY = 32 * 1024 * 1024

hide_environment()  # it holds the providers' keys
application = bounded(get_asgi_application(), max_bytes=LARGEST_BODY)
