"""The workspace of a run: the tree that containers see, and its snapshots in a repository that they do not see.

Git on the host never asks the tree what to do: no hooks, filters, text conversions, file system monitors or submodules
of it take effect. The tests in `tests/runner/test_workspace_inert.py` prove it.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

from djinn.runner.diff import Diff, read_diff
from djinn.runner.files import read_json, remove_tree, write_json
from djinn.runner.git import WorkspaceError, run_git
from djinn.runner.snapshots import Snapshots
from djinn.runner.source import Source, check_source, fetch

LOCK_SECONDS = 60.0
POLL_SECONDS = 0.05
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Workspace:
    """One directory a run: `tree` is mounted into containers, `snapshots.git` and `lock` are the host's.

    `owner` is the uid and gid that containers write with. Every verb holds the lock; one instance a thread.
    """

    def __init__(self, root: Path, *, owner: tuple[int, int] | None) -> None:
        self.root = root.absolute()
        self.tree = self.root / "tree"
        self._owner = owner
        self._held: int | None = None
        self._snapshots = Snapshots(self.root / "snapshots.git", self.tree)

    @property
    def skipped(self) -> tuple[str, ...]:
        """Repositories inside the tree that the last snapshot of this instance left out."""
        return self._snapshots.skipped

    @contextmanager
    def lock(self, timeout_seconds: float = LOCK_SECONDS) -> Iterator[int]:
        """Keep every other process out, and let in the verbs of this instance. Raises `WorkspaceError`."""
        if self._held is not None:
            yield self._held
            return
        self.root.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _acquire(descriptor, self.root, timeout_seconds)
            self._held = descriptor
            yield descriptor
        finally:
            self._held = None
            os.close(descriptor)

    def prepare(self, source: Source) -> str:
        """Make the tree unless it was made before; returns the first snapshot. Raises `WorkspaceError`."""
        check_source(source)
        marker = self.root / "prepared.json"
        with self.lock() as lock, _disk_errors():
            if (first := read_json(marker)) is not None:
                return cast(str, first)
            for leftover in (self.tree, self.root / "snapshots.git"):
                remove_tree(leftover)
            fetch(source, self.tree, lock=lock)
            self._snapshots.create(lock)
            snapshot = self._snapshots.take("Start of the run", lock)
            if not (self.tree / ".git").exists():
                _make_repository(self.tree, lock)
            self._give_away()
            write_json(marker, snapshot)
            return snapshot

    def snapshot(self, message: str) -> str:
        """The id of a snapshot of the tree; a tree that did not change gives the last one again."""
        with self.lock() as lock, _disk_errors():
            return self._snapshots.take(message, lock)

    def restore(self, snapshot: str) -> None:
        """Put the files of the snapshot back and remove newer ones; ignored files and inner repositories stay."""
        with self.lock() as lock, _disk_errors():
            self._snapshots.restore(snapshot, lock)
            self._give_away()

    def diff(self, before: str, after: str, *, max_bytes: int = 1_000_000) -> Diff:
        """What changed between two snapshots; the text is cut after `max_bytes`."""
        with self.lock() as lock:
            return read_diff(self.root / "snapshots.git", before, after, max_bytes=max_bytes, lock=lock)

    def remove(self) -> None:
        """Delete everything; absent is no error."""
        if self.root.is_dir():
            with self.lock():
                remove_tree(self.root)

    def _give_away(self) -> None:
        """Let the containers' user own the tree. Links are changed themselves, never what they point to."""
        if self._owner is None:
            return
        os.chown(self.tree, *self._owner)
        for _, names, files, directory in os.fwalk(self.tree):
            for name in (*names, *files):
                os.chown(name, *self._owner, dir_fd=directory, follow_symlinks=False)


def _make_repository(tree: Path, lock: int) -> None:
    """Make the fresh tree a repository for the agents' own use, with one commit of everything in it."""
    run_git(["init", "--quiet", "--template=", str(tree)], lock=lock, timeout_seconds=60)
    repository = Snapshots(tree / ".git", tree)
    repository.take("Start of the run", lock, reference="HEAD")


def _acquire(descriptor: int, root: Path, timeout_seconds: float) -> None:
    deadline = time.monotonic() + timeout_seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as exc:
            if time.monotonic() >= deadline:
                text = f"the workspace {root.name} is in use for {timeout_seconds} s"
                raise WorkspaceError(text, permanent=False, reason="error") from exc
        time.sleep(POLL_SECONDS)


@contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        reason = "disk" if exc.errno in _FULL else "error"
        raise WorkspaceError(f"the workspace's files: {exc}", permanent=False, reason=reason) from exc
