"""The gateway's settings: Djinn's, with the gateway's URLs and none of the pages' middleware."""

from __future__ import annotations

from djinn.settings import *  # noqa: F403

ROOT_URLCONF = "djinn.gateway.urls"
MIDDLEWARE = ["django_structlog.middlewares.RequestMiddleware"]
ALLOWED_HOSTS = ["*"]
"""Reached through a Unix socket alone; containers call it by whatever name they like."""
DATA_UPLOAD_MAX_MEMORY_SIZE = 16 * 1024 * 1024
FILE_UPLOAD_MAX_MEMORY_SIZE = 32 * 1024 * 1024
"""Of a body that Django keeps in memory rather than on a disk; `fair.py` bounds how many there are."""
