"""The web process: pages, API and admin over HTTP, the live log over WebSocket."""

from __future__ import annotations

import os

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "djinn.settings")

from django.core.asgi import get_asgi_application

http = get_asgi_application()

from channels.auth import AuthMiddlewareStack  # noqa: E402  needs the applications that the line above loads
from channels.routing import ProtocolTypeRouter, URLRouter  # noqa: E402

from djinn.core.body import bounded  # noqa: E402
from djinn.core.origins import of_our_origin  # noqa: E402
from djinn.dashboard.routing import websocket_urlpatterns  # noqa: E402

LARGEST_BODY = 8 * 1024 * 1024

application = ProtocolTypeRouter(
    {
        "http": bounded(http, max_bytes=LARGEST_BODY),
        "websocket": of_our_origin(AuthMiddlewareStack(URLRouter(websocket_urlpatterns))),
    }
)
