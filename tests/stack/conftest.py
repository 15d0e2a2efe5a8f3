"""One stack for all tests of this folder that can share it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from djinn.core.installation.paths import PROJECT
from djinn.runner.image import ensure_image
from tests import needs
from tests.stack.live import Live

IMAGE = "djinn-runtime:test"


@pytest.fixture(scope="session")
def image() -> str:
    """The agents' image. Without a Docker engine the test is skipped, or fails when CI says that there must be one."""
    needs.engine()
    ensure_image(context=PROJECT / "runtime_image", tag=IMAGE, log=print)
    return IMAGE


@pytest.fixture(scope="session")
def live(image: str) -> Iterator[Live]:
    """A running stack that tests may hurt as long as it heals by itself."""
    stack = Live(image=image)
    try:
        stack.up()
        yield stack
    finally:
        stack.clean()
