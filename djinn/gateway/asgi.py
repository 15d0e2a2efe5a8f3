"""The gateway's ASGI application, served by uvicorn on a Unix socket."""

from __future__ import annotations

import os

os.environ["DJANGO_SETTINGS_MODULE"] = "djinn.gateway.settings"

from django.core.asgi import get_asgi_application

application = get_asgi_application()
