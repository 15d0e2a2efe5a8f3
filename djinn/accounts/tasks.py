"""Doors from the broker to the services."""

from __future__ import annotations

from djinn.accounts import services
from djinn.celery import app


@app.task(name="accounts.forget_expired")
def forget_expired() -> None:
    services.forget_expired()
