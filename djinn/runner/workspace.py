"""The workspace of a run: the tree that containers see, and its snapshots in a repository that they do not see.

Git on the host never asks the tree what to do: no hooks, filters, text conversions, file system monitors or submodules
of it take effect. The tests in `tests/runner/test_workspace_inert.py` prove it.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import cast

from djinn.runner import beneath
from djinn.runner.diff import Diff, read_diff
from djinn.runner.files import link_repository, read_json, remove_tree, write_json
from djinn.runner.git import WorkspaceError, run_git
from djinn.runner.lock import LOCK_SECONDS, hold_lock
from djinn.runner.merge import merge_snapshots
from djinn.runner.snapshots import LAST, Snapshots
from djinn.runner.source import Source, check_source, fetch
from djinn.runner.walk import DEEPEST, walk

UNFINISHED = "tree.unfinished"
_FULL = (errno.ENOSPC, errno.EDQUOT)
_LANE = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")
_LANE_LENGTH = 200


class Workspace:
    """One directory a run: each lane's `tree` is mounted into containers, all else in it is the host's.

    The lane "" is the tree of a run without parallel steps; all lanes share `snapshots.git` and the lock. `owner` is
    the uid and gid that containers write with. Every verb holds the lock; one instance a thread.
    """

    def __init__(self, root: Path, *, owner: tuple[int, int] | None, lane: str = "") -> None:
        if lane and (len(lane) > _LANE_LENGTH or not _LANE.fullmatch(lane)):
            raise WorkspaceError(f"not the name of a lane: {lane[:_LANE_LENGTH]!r}", permanent=True, reason="rejected")
        self.root = root.absolute()
        self.lane = lane
        self._home = self.root / "lanes" / lane if lane else self.root
        self.tree = self._home / "tree"
        self._owner = owner
        self._held: int | None = None
        self._git_dir = self.root / "snapshots.git"
        self._history = self.root / "first.git"
        self._marker = self.root / "prepared.json"
        self._index = (self._home if lane else self._git_dir) / "index"
        self._stillness = self._home / "still.json"
        self._snapshots = Snapshots(
            self._git_dir,
            self.tree,
            reference=f"refs/djinn/lane-{lane}-last" if lane else LAST,
            index=self._index,
        )

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
        with hold_lock(self.root, timeout_seconds) as descriptor:
            self._held = descriptor
            try:
                yield descriptor
            finally:
                self._held = None

    def prepare(
        self, source: Source, *, allowed_hosts: Collection[str] = (), is_full: Callable[[], bool] | None = None
    ) -> str:
        """Make the run's first tree, in this lane, unless one was made before; returns the first snapshot.

        `allowed_hosts` may serve the repository wherever they are, any other host at public addresses only.
        `is_full` is asked while it grows, and ends it. Raises `WorkspaceError`.
        """
        check_source(source)
        with self.lock() as lock, _disk_errors():
            if (first := read_json(self._marker)) is not None:
                return cast(str, first)
            self._remove_leftovers()
            self._home.mkdir(parents=True, exist_ok=True)
            fetch(source, self.tree, lock=lock, allowed_hosts=allowed_hosts, is_full=is_full)
            self._snapshots.create(lock)
            snapshot = self._snapshots.take("Start of the run", lock)
            if not (self.tree / ".git").exists():
                _make_repository(self.tree, lock)
            link_repository(self.tree / ".git", self._history)
            self._give_away()
            self._note_stillness(snapshot)
            write_json(self._marker, snapshot)
            return snapshot

    def fork(self, source_root: Path) -> None:
        """Begin with all snapshots of another run's workspace; what has begun already stays as it is.

        `restore` makes the tree then. Raises `WorkspaceError`, permanent when the other workspace is gone.
        """
        source = source_root.absolute()
        if self._marker.exists():
            return
        with _disk_errors(), ExitStack() as locks:
            try:
                for root in sorted((self.root, source)):  # always in this order: two forks cannot wait for each other
                    locks.enter_context(self.lock() if root == self.root else hold_lock(root, make=False))
            except FileNotFoundError as exc:
                raise _gone(source) from exc
            self._copy_from(source)

    def _copy_from(self, source: Path) -> None:
        origin = read_json(source / self._marker.name)
        if origin is None:
            raise _gone(source)
        if self._marker.exists():
            return
        self._remove_leftovers()
        for place in (self._git_dir, self._history):
            link_repository(source / place.name, place)
        write_json(self._marker, origin)

    def snapshot(self, message: str, *, parent: str = "", is_still: bool = False) -> str:
        """The id of a snapshot of the tree, made on top of `parent` or else of what the lane was last known to be.

        A tree that did not change since gives that one again. `is_still` says that nothing can write to the tree any
        more: to restore this very snapshot is nothing to do then, until `stir`. Raises `WorkspaceError`.
        """
        with self.lock() as lock, _disk_errors():
            snapshot = self._snapshots.take(message, lock, parent=parent)
            if is_still:
                self._note_stillness(snapshot)
            else:
                self._stillness.unlink(missing_ok=True)
            return snapshot

    def stir(self) -> None:
        """Something is about to write to the tree: what it is cannot be known any more."""
        with _disk_errors():
            self._stillness.unlink(missing_ok=True)

    def merge(self, snapshots: Sequence[str], message: str) -> str:
        """The snapshot that has what all of them changed, and all of them as parents; no tree is touched.

        One that another one is built on adds nothing; when only one is left, it is that one. The same snapshots in the
        same order and the same message give the same id. Raises `WorkspaceError`: permanent with the reason "conflict"
        and the `files` when the same place was changed differently.
        """
        with self.lock() as lock, _disk_errors():
            return merge_snapshots(self._git_dir, snapshots, message, lock=lock)

    def restore(self, snapshot: str) -> None:
        """Put the files of the snapshot back and remove newer ones; ignored files and inner repositories stay.

        Makes the lane's tree when there is none. Raises `WorkspaceError`, permanent when there is no such snapshot.
        """
        with self.lock() as lock, _disk_errors():
            if self.tree.exists() and read_json(self._stillness) == [snapshot, _boot()]:
                return
            self._stillness.unlink(missing_ok=True)
            if not self.tree.exists():
                self._make_tree(lock)
            self._snapshots.restore(snapshot, lock)
            self._give_away()

    def diff(self, before: str, after: str, *, max_bytes: int = 1_000_000) -> Diff:
        """What changed between two snapshots; the text is cut after `max_bytes`."""
        with self.lock() as lock:
            return read_diff(self._git_dir, before, after, max_bytes=max_bytes, lock=lock)

    def remove(self) -> None:
        """Delete everything; absent is no error."""
        if self.root.is_dir():
            with self.lock():
                remove_tree(self.root)

    def remove_tree(self) -> None:
        """Delete the lane's tree with all that no snapshot holds; `restore` makes it anew. Absent is no error."""
        if not self._home.is_dir():
            return
        with self.lock(), _disk_errors():
            self._stillness.unlink(missing_ok=True)
            unfinished = self._home / UNFINISHED
            remove_tree(unfinished)
            if self.tree.exists():
                self.tree.rename(unfinished)
            remove_tree(unfinished)

    def remove_lane(self) -> None:
        """Delete the lane's tree, not its snapshots; absent is no error. The lane "" lives as long as the workspace."""
        if not self.lane or not self._home.is_dir():
            return
        with self.lock(), _disk_errors():
            self.remove_tree()
            remove_tree(self._home)

    def _note_stillness(self, snapshot: str) -> None:
        """Good until the next boot: what a power cut leaves of a tree that was written to is not known."""
        write_json(self._stillness, [snapshot, _boot()], is_durable=False)

    def _make_tree(self, lock: int) -> None:
        """An empty tree with the repository of the run's first one, for the agents' own use."""
        unfinished = self._home / UNFINISHED
        remove_tree(unfinished)
        self._index.unlink(missing_ok=True)
        unfinished.mkdir(parents=True)
        link_repository(self._history, unfinished / ".git")
        unfinished.rename(self.tree)

    def _remove_leftovers(self) -> None:
        """Nothing runs in a workspace that is not prepared yet: what is there, a process that died has left."""
        for leftover in (self.root / "tree", self.root / "lanes", self._git_dir, self._history):
            remove_tree(leftover)

    def _give_away(self) -> None:
        """Let the containers' user own the tree. Links are changed themselves, never what they point to.

        The objects that the repositories of all lanes share stay the host's: no agent can change another one's history.
        What lies deeper than `DEEPEST` directories stays as it is.
        """
        if self._owner is None:
            return
        beneath.give_directory(self.tree, self._owner)
        for entry in walk(self.tree, lambda entry: len(entry.path) < DEEPEST):
            is_shared = stat.S_ISREG(entry.status.st_mode) and entry.status.st_nlink > 1
            if not is_shared and (entry.status.st_uid, entry.status.st_gid) != self._owner:
                os.chown(entry.name, *self._owner, dir_fd=entry.directory, follow_symlinks=False)


def _make_repository(tree: Path, lock: int) -> None:
    """Make the fresh tree a repository for the agents' own use, with one commit of everything in it."""
    run_git(["init", "--quiet", "--template=", str(tree)], lock=lock, timeout_seconds=60)
    Snapshots(tree / ".git", tree, reference="HEAD").take("Start of the run", lock)


@cache
def _boot() -> str:
    """Tells this start of the machine from others (proc(5), random/boot_id)."""
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()


def _gone(source: Path) -> WorkspaceError:
    return WorkspaceError(f"the workspace {source.name} is gone", permanent=True, reason="rejected")


@contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as exc:
        # The error of a whole tree's copy has no number of its own.
        is_full = exc.errno in _FULL or os.strerror(errno.ENOSPC) in str(exc)
        reason = "disk" if is_full else "error"
        raise WorkspaceError(f"the workspace's files: {exc}", permanent=False, reason=reason) from exc
