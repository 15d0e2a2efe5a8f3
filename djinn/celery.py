"""The Celery application. Tasks are thin; what they do and when they are rung again is in the services."""

from __future__ import annotations

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "djinn.settings")

app = Celery("djinn")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
