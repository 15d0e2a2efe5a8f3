"""Installs locked packages into a virtual environment, and shows how far it is. Runs before anything is installed.

    python3 -m djinn.core.installation.packages FOLDER requirements.txt

Standard library only. What pip says is kept in `FOLDER/packages.log`; its end is shown when pip fails.
"""

from __future__ import annotations

import re
import subprocess
import sys
import venv
from pathlib import Path

from djinn.core.installation.progress import Step, Steps

OLDEST_PYTHON = (3, 11)
SHOWN_LINES = 12
_REQUIREMENT = re.compile(r"^[A-Za-z0-9][\w.-]*(?:\[[\w,-]+\])?==", re.MULTILINE)


class NotInstalled(Exception):
    """The packages cannot be installed; the text says why and what to do."""


def main(arguments: list[str]) -> int:
    """Install; the exit code."""
    folder, requirements = Path(arguments[0]), Path(arguments[1])
    try:
        install(folder, requirements, Steps(sys.stdout))
    except NotInstalled as exc:
        sys.stderr.write(f"{exc}\n")
        return 1
    return 0


def install(folder: Path, requirements: Path, steps: Steps) -> None:
    """Make the virtual environment unless it is there, and install into it; raises `NotInstalled`."""
    if sys.version_info < OLDEST_PYTHON:
        raise NotInstalled(
            f"Djinn needs Python 3.11 or newer; this is {sys.version.split()[0]}: make PYTHON=python3.11"
        )
    count = len(_REQUIREMENT.findall(requirements.read_text(encoding="utf-8")))
    with steps.step("Packages", doing=f"making {folder}", done=f"{count} packages are in {folder}") as step:
        if not (folder / "bin" / "python").exists():
            _make(folder)
        _run_pip(folder, requirements, count, step)


def _make(folder: Path) -> None:
    try:
        venv.create(folder, with_pip=True)
    except (subprocess.CalledProcessError, OSError) as exc:
        advice = "On Debian: apt-get install python3-venv"
        raise NotInstalled(f"Python cannot make a virtual environment: {exc}\n{advice}") from exc


def _run_pip(folder: Path, requirements: Path, count: int, step: Step) -> None:
    """pip writes a line for each package that it fetches, and is silent while it installs all of them at the end."""
    command = [str(folder / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check", "--no-color",
               "--progress-bar", "off", "--require-hashes", "-r", str(requirements)]  # fmt: skip
    log, seen = folder / "packages.log", 0
    with (
        log.open("w", encoding="utf-8") as kept,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as pip,
    ):
        for line in pip.stdout or ():
            kept.write(line)
            if line.startswith(("Collecting ", "Requirement already satisfied")):
                seen += 1
                step.tell(f"fetching {min(seen, count)} of {count}")
            elif line.startswith("Installing collected packages"):
                step.tell(f"installing {count}")
    if pip.returncode:
        end = "\n".join(log.read_text(encoding="utf-8").splitlines()[-SHOWN_LINES:])
        raise NotInstalled(f"{end}\nThe packages of {requirements} could not be installed. All that pip said: {log}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
