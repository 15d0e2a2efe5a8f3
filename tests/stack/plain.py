"""A Python that has what `requirements.txt` locks and nothing else, as after `make up` in a fresh clone."""

from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
from pathlib import Path

from djinn.core.installation.paths import PROJECT

REQUIREMENTS = PROJECT / "requirements.txt"


def plain_python() -> Path:
    """Its interpreter. Made once for each content of `requirements.txt`, and kept.

    It lies in `$XDG_CACHE_HOME/djinn` (`~/.cache/djinn`), so that only the first tests after a change take the minute.
    """
    text = REQUIREMENTS.read_bytes() + sys.version.encode() + sys.executable.encode()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "djinn"
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / f"venv-{hashlib.sha256(text).hexdigest()[:16]}"
    with open(cache / "lock", "w", encoding="ascii") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "whole").exists():
            install = [sys.executable, "-m", "djinn.core.installation.packages", str(folder), str(REQUIREMENTS)]
            subprocess.run(install, cwd=PROJECT, check=True, timeout=600)
            (folder / "whole").touch()
    return folder / "bin" / "python"
