"""What `manage.py check --deploy` tells about this host."""

from __future__ import annotations

from typing import Any

from django.core.checks import CheckMessage, Info, register

from djinn.executions.disk import describe
from djinn.executions.places import present_runner


@register(deploy=True)
def disk_limits_are_kept(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """How, since not every host lets all be seen."""
    facts = "; ".join(f"{name.replace('_', ' ')}: {value}" for name, value in describe(present_runner()).items())
    return [Info(f"Disk limits of steps: {facts}", id="djinn.I001")]
