"""What changed between two snapshots."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from djinn.runner.git import end_group, failure, run_git, start_git
from djinn.runner.snapshots import GIT_SECONDS, check_snapshot

Change = Literal["added", "modified", "deleted"]

_CHANGES: dict[str, Change] = {"A": "added", "D": "deleted"}
_TREES_ONLY = ["-r", "--no-textconv", "--no-ext-diff", "--no-renames", "--no-color", "--ignore-submodules=all"]
_WORDS_BYTES = 64 * 1024


@dataclass(frozen=True)
class FileChange:
    """One file; `added` and `removed` count lines and are None when the file is not text."""

    path: str
    added: int | None
    removed: int | None
    change: Change


@dataclass(frozen=True)
class Diff:
    """A unified diff and its files. `is_cut` tells that `text` lacks its end; `files` is always whole."""

    text: str
    files: tuple[FileChange, ...]
    is_cut: bool


def read_diff(git_dir: Path, before: str, after: str, *, max_bytes: int, lock: int) -> Diff:
    """The difference of two snapshots, read from their trees; the working tree is not looked at."""
    check_snapshot(before)
    check_snapshot(after)
    command = ["diff-tree", *_TREES_ONLY, before, after]
    numbers = run_git([*command, "-z", "--raw", "--numstat"], lock=lock, timeout_seconds=GIT_SECONDS, git_dir=git_dir)
    text, is_cut = _read_text([*command, "--patch", "--full-index"], git_dir, max_bytes=max_bytes, lock=lock)
    return Diff(text=text, files=_files(numbers), is_cut=is_cut)


def _read_text(command: list[str], git_dir: Path, *, max_bytes: int, lock: int) -> tuple[str, bool]:
    """At most `max_bytes` of the patch; git is ended when it has more, or when its time is over."""
    with start_git(command, lock=lock, git_dir=git_dir) as process:
        alarm = threading.Timer(GIT_SECONDS, end_group, args=[process])
        alarm.start()
        try:
            assert process.stdout is not None
            assert process.stderr is not None
            patch = process.stdout.read(max_bytes + 1)
            is_cut = len(patch) > max_bytes
            words = b"" if is_cut else process.stderr.read(_WORDS_BYTES)
            if not is_cut:
                process.wait()
        finally:
            alarm.cancel()
            end_group(process)
    if process.returncode and not is_cut:
        raise failure("diff-tree", words)
    # Git calls a file text when its first 8000 bytes hold no NUL; behind them one may come, and PostgreSQL takes none.
    return patch[:max_bytes].decode("utf-8", "replace").replace("\0", "\ufffd"), is_cut


def _files(output: bytes) -> tuple[FileChange, ...]:
    """Git writes the pairs of `--raw` first (`:modes ids LETTER`, path), then a `n<TAB>n<TAB>path` a file."""
    fields = [field for field in output.split(b"\0") if field]
    changes: dict[bytes, Change] = {}
    files: list[FileChange] = []
    position = 0
    while position < len(fields) and fields[position].startswith(b":"):
        letter = fields[position].rsplit(b" ", 1)[1].decode()[0]
        changes[fields[position + 1]] = _CHANGES.get(letter, "modified")
        position += 2
    for line in fields[position:]:
        added, removed, path = line.split(b"\t", 2)
        files.append(FileChange(path.decode("utf-8", "replace"), _count(added), _count(removed), changes[path]))
    return tuple(files)


def _count(text: bytes) -> int | None:
    return None if text == b"-" else int(text)
