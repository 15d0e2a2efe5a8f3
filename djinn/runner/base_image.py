"""A Debian base image made from Debian's packages, for machines that reach a Debian mirror but no image registry."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

DEFAULT_MIRROR = "http://deb.debian.org/debian"
BOOTSTRAP_SECONDS = 900
_BASE = re.compile(r"debian:(?P<suite>bookworm|trixie)(?:-slim)?")
_URI = re.compile(r"^(?:deb\s+(?:\[[^\]]*\]\s+)?|URIs:\s*)(?P<uri>https?://\S+/debian)/?\s", re.MULTILINE)


def bootstrap_base_image(base: str, archive: Path, log: Callable[[str], None]) -> bool:
    """Write the root file system of that Debian to a tar file.

    False when it cannot be made here: another base, no debootstrap, not root, or the mirror does not answer.
    """
    match = _BASE.fullmatch(base)
    if match is None or shutil.which("debootstrap") is None or os.getuid() != 0:
        return False
    with tempfile.TemporaryDirectory(prefix="djinn-base-") as directory:
        root = Path(directory) / "root"
        mirror = find_mirror(Path("/etc/apt"))
        log(f"making {base} with debootstrap from {mirror}")
        if not _run(["debootstrap", "--variant=minbase", match["suite"], str(root), mirror], log):
            return False
        _slim(root)
        return _run(["tar", "--numeric-owner", "--one-file-system", "-C", str(root), "-cf", str(archive), "."], log)


def find_mirror(apt: Path) -> str:
    """The mirror that this machine's own apt uses, or Debian's."""
    for path in sorted([*apt.glob("sources.list"), *apt.glob("sources.list.d/*")]):
        if match := _URI.search(path.read_text(errors="replace")):
            return match["uri"]
    return DEFAULT_MIRROR


def _slim(root: Path) -> None:
    """Drop what only costs room in a container."""
    for path in ("var/cache/apt/archives", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale"):
        for entry in (root / path).glob("*"):
            shutil.rmtree(entry) if entry.is_dir() and not entry.is_symlink() else entry.unlink()


def _run(command: list[str], log: Callable[[str], None]) -> bool:
    try:
        result = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=BOOTSTRAP_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        log(f"{command[0]}: {exc}")
        return False
    if result.returncode:
        log(f"{command[0]}: {result.stdout.decode('utf-8', 'replace').strip()[-2000:]}")
    return result.returncode == 0
