"""All sockets of the web process."""

from __future__ import annotations

from django.urls import re_path

from djinn.dashboard.consumers import Nowhere, RunConsumer

websocket_urlpatterns = [
    re_path(r"^ws/runs/(?P<run_id>[0-9]{1,18})/$", RunConsumer.as_asgi()),
    re_path(r"", Nowhere.as_asgi()),
]
