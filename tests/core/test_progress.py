"""Steps of a first start: what they show on a terminal and in a file, and what they say when they fail."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest

from djinn.core.installation.paths import PROJECT
from djinn.core.installation.progress import Lines, Steps


class Terminal(io.StringIO):
    """What is written to a terminal."""

    def isatty(self) -> bool:
        return True

    def seen(self) -> list[str]:
        """The lines that stand there at the end: what is written over is gone."""
        return [line.rpartition("\x1b[K")[2] for line in self.getvalue().split("\n")]


def test_a_step_shows_on_a_terminal_how_far_it_is_and_leaves_one_line() -> None:
    terminal = Terminal()
    with Steps(terminal).step("Packages", doing="making it", done="3 are here") as step:
        assert terminal.seen() == ["Packages   making it"]
        step.tell("fetching 2 of 3")
        assert terminal.seen() == ["Packages   fetching 2 of 3"]
    assert terminal.seen() == ["Packages   3 are here (0 s)", ""]


def test_a_step_writes_one_line_into_a_file() -> None:
    file = io.StringIO()
    with Steps(file).step("Image", doing="looking") as step:
        for number in range(100):
            step.tell(f"layer {number}")
    assert file.getvalue() == "Image      ready (0 s)\n"


def test_a_step_that_fails_leaves_no_line() -> None:
    terminal = Terminal()
    with pytest.raises(KeyError), Steps(terminal).step("Image", doing="looking"):
        raise KeyError
    assert terminal.seen() == [""]


def test_what_is_shown_cannot_steer_the_terminal_and_fits_on_a_line() -> None:
    terminal = Terminal()
    with Steps(terminal).step("Image", doing="looking") as step:
        step.tell("\x1b]0;owned\x07" + "long" * 100)
        assert "\x07" not in terminal.getvalue()
        assert len(terminal.seen()[-1]) < 400


def test_each_line_that_is_written_is_taken_once_it_is_whole() -> None:
    taken: list[str] = []
    stream = Lines(taken.append)
    for piece in ("  Applying core.0001", "... OK\n\nApply", "ing core.0002... OK\n"):
        stream.write(piece)
    assert taken == ["Applying core.0001... OK", "Applying core.0002... OK"]


def test_packages_that_cannot_be_installed_are_told_with_pips_last_words(tmp_path: Path) -> None:
    requirements, folder = tmp_path / "requirements.txt", tmp_path / "venv"
    requirements.write_text("no-such-thing-of-djinn==1.0 --hash=sha256:00\n")
    command = [sys.executable, "-m", "djinn.core.installation.packages", str(folder), str(requirements)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 1
    assert "ERROR" in done.stderr
    assert done.stderr.rstrip().endswith(f"All that pip said: {folder / 'packages.log'}")
    assert "Traceback" not in done.stderr


def test_an_old_python_is_refused_in_a_sentence(tmp_path: Path) -> None:
    script = (
        "import sys; sys.version_info = (3, 9); from djinn.core.installation.packages import main;"
        "sys.exit(main(['x', 'y']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Djinn needs Python 3.11 or newer; this is ")
