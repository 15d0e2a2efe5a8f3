"""What is written about an exception."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from djinn.core.installation.paths import PROJECT

SCRIPT = """
import logging
import structlog
from djinn.core.logging import configure_logging
configure_logging(level="INFO", as_json={as_json})

def work(secret):
    raise ValueError("it broke")

try:
    work("hunter" + "2")
except ValueError:
    {log}
"""


@pytest.mark.parametrize("as_json", [True, False])
@pytest.mark.parametrize(
    "log", ['logging.getLogger("x").exception("failed")', 'structlog.get_logger("x").exception("failed")']
)
def test_a_traceback_is_logged_without_the_values_of_variables(as_json: bool, log: str) -> None:
    script = SCRIPT.format(as_json=as_json, log=log)
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=PROJECT, capture_output=True, text=True, timeout=60, check=True
    )
    assert "ValueError: it broke" in done.stderr
    assert "hunter2" not in done.stderr
    assert "UserWarning" not in done.stderr
    if as_json:
        assert "Traceback" in json.loads(done.stderr)["exception"]
