from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import structlog
from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from djinn.runner.base import RunnerError
from djinn.runner.image import ensure_image

log = structlog.get_logger(__name__)


class Command(BaseCommand):
    help = (
        "Builds the image in which agents work, when it is missing or when what it is made of has changed. "
        "DJINN_EXTRA_CA names a PEM file or a folder of *.crt that it trusts as well."
    )
    requires_system_checks = ()

    def handle(self, *args: Any, **options: Any) -> None:
        certificates = os.environ.get("DJINN_EXTRA_CA")
        try:
            image = ensure_image(
                context=settings.RUNTIME_DIRECTORY,
                tag=settings.DEFAULT_IMAGE,
                base=os.environ.get("DJINN_BASE_IMAGE", "debian:bookworm-slim"),
                extra_certificates=Path(certificates) if certificates else None,
                network=os.environ.get("DJINN_BUILD_NETWORK"),
                log=self.stdout.write if options["verbosity"] else log.debug,
            )
        except RunnerError as exc:
            raise CommandError(str(exc)) from exc
        if options["verbosity"]:
            self.stdout.write(f"Image {settings.DEFAULT_IMAGE} is {image[:19]}.")
